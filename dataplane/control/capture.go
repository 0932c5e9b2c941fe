package control

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// Trailers of a capture.
const (
	trailerPackets = "Nsgd-Packets"
	trailerLost    = "Nsgd-Lost"
	trailerSkipped = "Nsgd-Skipped"
)

// GET or POST /v1/capture answers with pcapng, and with the summary in trailers. Its query is an
// inspect.WatchRequest: filter, denied, count, perSecond, sample and snapLen.
var capturePath = addRoute("capture", change, (*Server).capture, http.MethodGet, http.MethodPost)

func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, "application/x-pcapng", true, func(ctx context.Context, a *streamAnswer) error {
		return a.Capture(ctx, a.out, a.flush)
	}, func(sum inspect.WatchSummary) http.Header {
		header := http.Header{}
		for name, n := range map[string]uint64{trailerPackets: sum.Packets, trailerLost: sum.Lost, trailerSkipped: sum.Skipped} {
			header.Set(name, strconv.FormatUint(n, 10))
		}
		return header
	})
}

// Capture writes packets as pcapng, until the request's count or until ctx ends, which is no
// error.
func (c *Client) Capture(ctx context.Context, q inspect.WatchRequest, w io.Writer) (*inspect.WatchSummary, error) {
	trailer, err := c.stream(ctx, capturePath, watchQuery(q), func(body io.Reader) error {
		_, err := io.Copy(w, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	s := &inspect.WatchSummary{}
	for name, into := range map[string]*uint64{trailerPackets: &s.Packets, trailerLost: &s.Lost, trailerSkipped: &s.Skipped} {
		if *into, err = strconv.ParseUint(trailer.Get(name), 10, 64); err != nil {
			return nil, fmt.Errorf("control: capture: %s: %w", name, err)
		}
	}
	return s, nil
}
