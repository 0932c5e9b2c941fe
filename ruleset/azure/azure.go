// Package azure has Azure's answers, and the questions to them, in Azure's own JSON:
// effective rules, IP flow verify, NSG diagnostics, security group view and next hop.
package azure

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

// SubResource is a reference to a resource.
type SubResource struct {
	ID string `json:"id"`
}
