// Package azure holds Azure's questions and answers in Azure's own JSON: effective
// rules, IP flow verify, NSG diagnostics, security group view and next hop.
package azure

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// SystemRoute takes the place of a route table's id when no user-defined route decides.
const SystemRoute = "System Route"

// HopVirtualNetwork is how next hop names what effective routes and route tables name VnetLocal.
const HopVirtualNetwork = "VirtualNetwork"

// HopVNetPeering is how effective routes name what next hop names VirtualNetworkPeering.
const HopVNetPeering = "VNetPeering"

// NextHopResult is the answer of Azure Network Watcher's next hop.
type NextHopResult struct {
	// NextHopType is Internet, VirtualAppliance, VirtualNetworkGateway, VirtualNetwork (which effective
	// routes name VnetLocal), VirtualNetworkPeering, InterfaceEndpoint,
	// VirtualNetworkServiceEndpoint or None.
	NextHopType      string `json:"nextHopType"`
	NextHopIPAddress string `json:"nextHopIpAddress,omitempty"` // as the route has it, mostly of a virtual appliance
	RouteTableID     string `json:"routeTableId"`               // or "System Route"
}

// SubResource is a reference to a resource.
type SubResource struct {
	ID string `json:"id"`
}

// direction reads a question's direction, in any case.
func direction(text string) (ruleset.Direction, error) {
	switch strings.ToLower(text) {
	case "inbound":
		return ruleset.Inbound, nil
	case "outbound":
		return ruleset.Outbound, nil
	}
	return 0, fmt.Errorf("direction %q: allowed are Inbound and Outbound", text)
}

func flowAddress(field, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s %q: allowed is an IPv4 or IPv6 address", field, text)
	}
	return a, nil
}

// IANA's numbers of the protocols that questions can name.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolESP    = 50
	protocolAH     = 51
	protocolICMPv6 = 58
)

func flowProtocol(text string, ipv6 bool) (uint8, error) {
	switch strings.ToUpper(text) {
	case "TCP":
		return protocolTCP, nil
	case "UDP":
		return protocolUDP, nil
	case "ICMP":
		if ipv6 {
			return protocolICMPv6, nil
		}
		return protocolICMP, nil
	case "ESP":
		return protocolESP, nil
	case "AH":
		return protocolAH, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: allowed are TCP, UDP, ICMP, ESP, AH and 0 to 255", text)
	}
	return uint8(n), nil
}

// flowPort reads a port. source says that it is the flow's source port, which may be "*".
func flowPort(field, text string, protocol uint8, source bool) (uint16, error) {
	needed := protocol == protocolTCP || protocol == protocolUDP
	switch {
	case text == "" && !needed, text == "*" && (source || !needed):
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil && source:
		return 0, fmt.Errorf("%s %q: allowed are 0 to 65535 and *", field, text)
	case err != nil:
		return 0, fmt.Errorf("%s %q: allowed are 0 to 65535", field, text)
	case !needed:
		return 0, nil
	}
	return uint16(n), nil
}
