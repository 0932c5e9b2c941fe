package ask

import (
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// EffectiveRoutes lists the routes of a NIC, by name or id, as Azure's effective routes do: those of the
// system, of gateways and of the route table of its primary ipConfiguration's subnet.
func EffectiveRoutes(s *topology.Snapshot, networkInterface string) (*azure.EffectiveRouteListResult, error) {
	nic, err := s.Policy.NetworkInterface(networkInterface)
	if err != nil {
		return nil, err
	}
	from := s.Endpoint(nic, Primary(nic).Address)
	result := &azure.EffectiveRouteListResult{Value: []azure.EffectiveRoute{}}
	table := s.RouteTable(from)
	for _, r := range s.EffectiveRoutes(from) {
		shown := azure.EffectiveRoute{Source: string(r.Source), State: "Invalid", NextHopType: string(r.Type),
			AddressPrefix: []string{}, NextHopIPAddress: []string{}, DisableBGPRoutePropagation: table != nil && table.DisableGatewayRoutes}
		if r.Type == topology.HopPeering {
			shown.NextHopType = azure.HopVNetPeering
		}
		if r.Name != "" {
			shown.Name = &r.Name
		}
		if r.Active {
			shown.State = "Active"
		}
		for _, p := range r.Prefixes {
			shown.AddressPrefix = append(shown.AddressPrefix, p.String())
		}
		if r.Address.IsValid() {
			shown.NextHopIPAddress = append(shown.NextHopIPAddress, r.Address.String())
		}
		result.Value = append(result.Value, shown)
	}
	return result, nil
}
