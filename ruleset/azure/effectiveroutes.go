package azure

// EffectiveRouteListResult is the answer of Azure's effective routes of a NIC.
type EffectiveRouteListResult struct {
	Value    []EffectiveRoute `json:"value"`
	NextLink *string          `json:"nextLink"` // always null
}

// EffectiveRoute is one route. Lists are never null.
type EffectiveRoute struct {
	Name                       *string  `json:"name"` // of a user-defined route; else null
	DisableBGPRoutePropagation bool     `json:"disableBgpRoutePropagation"`
	Source                     string   `json:"source"` // Default, User or VirtualNetworkGateway
	State                      string   `json:"state"`  // Active, or Invalid where another route has its place
	AddressPrefix              []string `json:"addressPrefix"`
	NextHopIPAddress           []string `json:"nextHopIpAddress"`
	// NextHopType is VnetLocal, VNetPeering, Internet, None, VirtualAppliance, VirtualNetworkGateway,
	// VirtualNetworkServiceEndpoint or InterfaceEndpoint.
	NextHopType string `json:"nextHopType"`
}
