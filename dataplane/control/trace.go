package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET or POST /v1/trace answers with an inspect.Trace a line. Its query is an
// inspect.WatchRequest: filter, denied, count, perSecond and sample.
var tracePath = addRoute("trace", look, (*Server).trace, http.MethodGet, http.MethodPost)

func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, "application/x-ndjson", false, func(ctx context.Context, a *streamAnswer) error {
		lines := json.NewEncoder(a.out)
		lines.SetEscapeHTML(false)
		return a.Trace(ctx, func(t *inspect.Trace) error { return lines.Encode(t) }, a.flush)
	}, func(inspect.WatchSummary) http.Header { return nil })
}

// Trace yields what becomes of packets, until the request's count or until ctx ends. The end of
// ctx is no error, and the last line, with the summary, comes after it.
func (c *Client) Trace(ctx context.Context, q inspect.WatchRequest, yield func(*inspect.Trace) error) error {
	_, err := c.stream(ctx, tracePath, watchQuery(q), func(body io.Reader) error { return eachLine(body, yield) })
	return err
}
