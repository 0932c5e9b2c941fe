package control

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// GET /v1/next-hop says where packets go from source to destination, two addresses. The source
// is of the networkInterface, or of a NIC of the virtualMachine, each by name or id.
var nextHopRoute = get("next-hop", func(s *inspect.Service, v url.Values) (result *azure.NextHopResult, err error) {
	q := ask.NextHopQuestion{NetworkInterface: v.Get("networkInterface"), VirtualMachine: v.Get("virtualMachine")}
	if q.Source, err = parseAddress(v, "source"); err != nil {
		return nil, err
	}
	if q.Destination, err = parseAddress(v, "destination"); err != nil {
		return nil, err
	}
	snapshot, err := s.Asked()
	if err != nil {
		return nil, err
	}
	result, err = ask.NextHop(snapshot, q)
	return result, notFound(err)
})

func parseAddress(query url.Values, name string) (netip.Addr, error) {
	text := query.Get(name)
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return a, badRequest(fmt.Errorf("%s address: %q: allowed is an IP address", name, text))
	}
	return a.Unmap(), nil
}

// NextHop asks where a NIC's packets to an address go.
func (c *Client) NextHop(ctx context.Context, q ask.NextHopQuestion) (*azure.NextHopResult, error) {
	return nextHopRoute.ask(ctx, c, url.Values{
		"networkInterface": {q.NetworkInterface}, "virtualMachine": {q.VirtualMachine},
		"source": {q.Source.String()}, "destination": {q.Destination.String()},
	}, nil)
}
