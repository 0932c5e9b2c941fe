package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// goodbye is how long a daemon may take to end a stream that was asked to end.
const goodbye = 5 * time.Second

// Trace yields what becomes of packets, until the request's count, or until ctx ends, which is
// no error: the last line, with the summary, comes after that.
func (c *Client) Trace(ctx context.Context, q WatchRequest, yield func(*Trace) error) error {
	_, err := c.stream(ctx, "trace", q, func(body io.Reader) error {
		for lines := json.NewDecoder(bufio.NewReader(body)); ; {
			line := new(Trace)
			if err := lines.Decode(line); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := yield(line); err != nil {
				return err
			}
		}
	})
	return err
}

// Capture writes packets as pcapng, until the request's count, or until ctx ends, which is no
// error.
func (c *Client) Capture(ctx context.Context, q WatchRequest, w io.Writer) (*WatchSummary, error) {
	trailer, err := c.stream(ctx, "capture", q, func(body io.Reader) error {
		_, err := io.Copy(w, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	s := &WatchSummary{}
	for name, into := range map[string]*uint64{trailerPackets: &s.Packets, trailerLost: &s.Lost, trailerSkipped: &s.Skipped} {
		if *into, err = strconv.ParseUint(trailer.Get(name), 10, 64); err != nil {
			return nil, fmt.Errorf("control: capture: %s: %w", name, err)
		}
	}
	return s, nil
}

// stream reads an endless answer. The request's body is open until ctx ends: its end tells the
// daemon to say its last words.
func (c *Client) stream(ctx context.Context, what string, q WatchRequest, read func(io.Reader) error) (http.Header, error) {
	body, end := io.Pipe()
	defer end.Close()
	asked, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		end.Close()
		time.AfterFunc(goodbye, cancel)
	})
	defer stop()
	response, err := c.do(asked, http.MethodPost, what, q.values(), body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if err := read(response.Body); err != nil {
		return nil, fmt.Errorf("control: %s: %w", what, err)
	}
	return response.Trailer, nil
}
