package control

import (
	"context"
	"net/url"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// GET /v1/flows lists live flows. Its query chooses them:
//
//	networkInterface  a NIC at either end, by name or id
//	address           an address at either end, or its prefix
//	protocol          a name such as TCP, or a number
//	limit             how many are listed, 1 to inspect.MaxFlowLimit
var flowsRoute = get("flows", func(s *inspect.Service, query url.Values) (*inspect.FlowList, error) {
	filter, err := parseFlowFilter(query)
	if err != nil {
		return nil, err
	}
	list, err := s.Flows(filter)
	return list, notFound(err)
})

func parseFlowFilter(query url.Values) (f inspect.FlowFilter, err error) {
	f = inspect.FlowFilter{NetworkInterface: query.Get("networkInterface"), Address: query.Get("address"), Protocol: query.Get("protocol")}
	if f.Limit, err = parseNumber(query, "limit", 0, inspect.MaxFlowLimit); err != nil {
		return f, err
	}
	return f, badRequest(f.Check())
}

// Flows lists live flows.
func (c *Client) Flows(ctx context.Context, filter inspect.FlowFilter) (*inspect.FlowList, error) {
	return flowsRoute.ask(ctx, c, flowQuery(filter), nil)
}

func flowQuery(filter inspect.FlowFilter) url.Values {
	return url.Values{
		"networkInterface": {filter.NetworkInterface}, "address": {filter.Address}, "protocol": {filter.Protocol},
		"limit": {strconv.Itoa(filter.Limit)},
	}
}
