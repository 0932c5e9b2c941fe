package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/drops says what was dropped of late: since such as 10m, filter as of /v1/trace, and limit.
var dropsRoute = get("drops", func(s *inspect.Service, query url.Values) (*inspect.DropList, error) {
	q := inspect.DropQuestion{Filter: query.Get("filter")}
	var err error
	if q.Since, err = parseSince(query); err != nil {
		return nil, err
	}
	if q.Limit, err = parseNumber(query, "limit", 0, inspect.MaxPairLimit); err != nil {
		return nil, err
	}
	list, err := s.Drops(q)
	return list, remembered(err)
})

// remembered refuses a question about what is remembered.
func remembered(err error) error {
	if errors.Is(err, inspect.ErrNoHistory) {
		return notFound(err)
	}
	return badRequest(err)
}

// parseSince reads how long ago something begins; an absent value is 0.
func parseSince(query url.Values) (time.Duration, error) {
	text := query.Get("since")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > history.MaxKeep {
		return 0, badRequest(fmt.Errorf("since: %q: allowed are 0s to %v", text, history.MaxKeep))
	}
	return d, nil
}

// Drops asks what was dropped of late.
func (c *Client) Drops(ctx context.Context, q inspect.DropQuestion) (*inspect.DropList, error) {
	return dropsRoute.ask(ctx, c, url.Values{"since": {q.Since.String()}, "filter": {q.Filter}, "limit": {strconv.Itoa(q.Limit)}}, nil)
}

// GET /v1/endedFlows lists flows that have ended of late: the query of /v1/flows, and since such as 10m.
var endedRoute = get("endedFlows", func(s *inspect.Service, query url.Values) (*inspect.EndedList, error) {
	filter, err := parseFlowFilter(query)
	if err != nil {
		return nil, err
	}
	since, err := parseSince(query)
	if err != nil {
		return nil, err
	}
	list, err := s.Ended(inspect.EndedQuestion{FlowFilter: filter, Since: since})
	return list, notFound(err)
})

// EndedFlows lists flows that have ended of late.
func (c *Client) EndedFlows(ctx context.Context, q inspect.EndedQuestion) (*inspect.EndedList, error) {
	query := flowQuery(q.FlowFilter)
	query.Set("since", q.Since.String())
	return endedRoute.ask(ctx, c, query, nil)
}

// GET /v1/reloads lists the last reloads. It has no query.
var reloadsRoute = get("reloads", func(s *inspect.Service, _ url.Values) (*inspect.ReloadList, error) {
	return s.ReloadList(), nil
})

// Reloads lists the last reloads.
func (c *Client) Reloads(ctx context.Context) (*inspect.ReloadList, error) {
	return reloadsRoute.ask(ctx, c, nil, nil)
}

// GET or POST /v1/followFlows answers with an inspect.FlowChange a line: flows that begin and end. Its query is that of
// /v1/flows, without limit.
var followPath = addRoute("followFlows", look, (*Server).follow, http.MethodGet, http.MethodPost)

func (s *Server) follow(w http.ResponseWriter, r *http.Request) {
	s.streamOf(w, r, "application/x-ndjson", func(query url.Values) (*inspect.Stream, error) {
		filter, err := parseFlowFilter(query)
		if err != nil {
			return nil, err
		}
		stream, err := s.service.Follow(filter)
		return stream, notFound(err)
	}, func(ctx context.Context, a *streamAnswer) error {
		lines := json.NewEncoder(a.out)
		lines.SetEscapeHTML(false)
		return a.Follow(ctx, func(f *inspect.FlowChange) error { return lines.Encode(f) }, a.flush)
	}, func(inspect.WatchSummary) http.Header { return nil })
}

// FollowFlows yields flows that begin and end, until ctx ends. The end of ctx is no error, and the last line, with the
// summary, comes after it.
func (c *Client) FollowFlows(ctx context.Context, filter inspect.FlowFilter, yield func(*inspect.FlowChange) error) error {
	_, err := c.stream(ctx, followPath, flowQuery(filter), func(body io.Reader) error {
		return eachLine(body, yield)
	})
	return err
}

// eachLine yields the lines of a stream.
func eachLine[T any](body io.Reader, yield func(*T) error) error {
	for lines := json.NewDecoder(bufio.NewReader(body)); ; {
		line := new(T)
		if err := lines.Decode(line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := yield(line); err != nil {
			return err
		}
	}
}
