package arm

// SystemRoute stands for the id of a route table where no user-defined route decides.
const SystemRoute = "System Route"

// NextHopResult is the answer of Azure Network Watcher's next hop.
type NextHopResult struct {
	// NextHopType is Internet, VirtualAppliance, VirtualNetworkGateway, VnetLocal,
	// VirtualNetworkPeering or None.
	NextHopType      string `json:"nextHopType"`
	NextHopIPAddress string `json:"nextHopIpAddress,omitempty"` // of a virtual appliance
	RouteTableID     string `json:"routeTableId"`               // or "System Route"
}
