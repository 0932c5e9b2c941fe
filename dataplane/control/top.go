package control

import (
	"context"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/top answers with the rows that lead by an order. Its query is an inspect.TopQuestion:
//
//	view     rules, flows, talkers or drops
//	order    one of inspect.TopOrders; absent: the first
//	reverse  true: the smallest first
//	by       of talkers: pair, source or destination
//	filter   words that each row must have
//	limit    how many rows, 1 to inspect.MaxTopLimit
var topRoute = get("top", func(s *inspect.Service, v url.Values) (*inspect.TopReading, error) {
	q := inspect.TopQuestion{View: inspect.TopView(v.Get("view")), Order: v.Get("order"), By: inspect.TalkersBy(v.Get("by")), Filter: v.Get("filter")}
	var err error
	if q.Reverse, err = parseFlag(v, "reverse"); err != nil {
		return nil, err
	}
	if q.Limit, err = parseNumber(v, "limit", 1, inspect.MaxTopLimit); err != nil {
		return nil, err
	}
	reading, err := s.Top(q)
	return reading, badRequest(err)
})

// Top asks for a reading.
func (c *Client) Top(ctx context.Context, q inspect.TopQuestion) (*inspect.TopReading, error) {
	v := url.Values{"view": {string(q.View)}, "order": {q.Order}, "by": {string(q.By)}, "filter": {q.Filter},
		"reverse": {strconv.FormatBool(q.Reverse)}}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return topRoute.ask(ctx, c, v, nil)
}
