package policy

import (
	"net/netip"
	"time"
)

// SKU is what public addresses, NAT gateways and load balancers are of.
type SKU string

// The SKUs. Where a document doesn't say, a NAT gateway is Standard and anything else Basic.
const (
	SKUBasic      SKU = "Basic"
	SKUStandard   SKU = "Standard"
	SKUStandardV2 SKU = "StandardV2"
	SKUGateway    SKU = "Gateway" // of load balancers
)

// Closed reports that nothing comes in to where no network security group stands.
func (s SKU) Closed() bool { return s != SKUBasic }

// PublicIPAddress is a public IP address.
type PublicIPAddress struct {
	Name string
	ID   string
	SKU  SKU
	// Address is not valid when it is not known, as of one that Azure chooses: nothing is
	// translated by it.
	Address     netip.Addr
	IPv6        bool // whether or not Address is known
	IdleTimeout time.Duration
}

// PublicIPPrefix is a range of public addresses.
type PublicIPPrefix struct {
	Name   string
	ID     string
	SKU    SKU
	Prefix netip.Prefix // not valid when it is not known
}

// NATGateway is a NAT gateway.
type NATGateway struct {
	Name        string
	ID          string
	SKU         SKU
	IdleTimeout time.Duration // of TCP flows, 4 to 120 minutes
	Addresses   []*PublicIPAddress
	Prefixes    []*PublicIPPrefix
	// Unknown says that it has addresses which are not known: nothing is known of what it
	// translates.
	Unknown bool
}

// PublicAddresses are all addresses of the gateway that are known, in the document's order, those
// of prefixes last.
func (g *NATGateway) PublicAddresses() (list []netip.Addr) {
	for _, p := range g.Addresses {
		if p.Address.IsValid() {
			list = append(list, p.Address)
		}
	}
	for _, p := range g.Prefixes {
		list = append(list, p.Addresses()...)
	}
	return list
}

// Addresses are all addresses of a prefix; none of one that is not known.
func (p *PublicIPPrefix) Addresses() (list []netip.Addr) {
	if !p.Prefix.IsValid() {
		return nil
	}
	for a := p.Prefix.Addr(); p.Prefix.Contains(a); a = a.Next() {
		list = append(list, a)
	}
	return list
}

// LoadBalancer is a load balancer.
type LoadBalancer struct {
	Name          string
	ID            string
	SKU           SKU
	Frontends     []*Frontend
	Pools         []*BackendPool
	Probes        []*HealthProbe
	Rules         []*LoadBalancingRule
	NATRules      []*InboundNATRule
	OutboundRules []*OutboundRule
}

// Frontend is a frontend IP configuration of a load balancer: a public address, a range of them for
// outbound rules, or an address in a subnet.
type Frontend struct {
	Name            string
	ID              string
	PublicIPAddress *PublicIPAddress // nil when it has none
	PublicIPPrefix  *PublicIPPrefix  // nil when it has none
	Subnet          *Subnet          // of an internal frontend; else nil
	// Address is the public one or that in the subnet; not valid when it is not known, so that
	// nothing is translated by the frontend.
	Address netip.Addr
	IPv6    bool // whether or not Address is known
}

// Public reports that the frontend is reached from the internet.
func (f *Frontend) Public() bool { return f.Subnet == nil }

// Outbound are the public addresses that outbound connections may get.
func (f *Frontend) Outbound() []netip.Addr {
	switch {
	case f.PublicIPPrefix != nil:
		return f.PublicIPPrefix.Addresses()
	case f.Subnet == nil && f.Address.IsValid():
		return []netip.Addr{f.Address}
	}
	return nil
}

// BackendPool is a backend address pool.
type BackendPool struct {
	Name string
	ID   string
	// Backends are its members: those that the pool lists, then the ipConfigurations that name
	// it, in the order of the documents.
	Backends []Backend
}

// Backend is a member of a pool: an ipConfiguration of a network interface, or an address.
type Backend struct {
	NetworkInterface *NetworkInterface // nil when the pool gives an address
	VirtualNetwork   *VirtualNetwork
	Address          netip.Addr
}

// HealthProbe is a health probe of a load balancer.
type HealthProbe struct {
	Name     string
	Protocol string // Tcp, Http or Https
	Port     uint16
	Path     string // of Http and Https
	Interval time.Duration
	// Threshold is how many answers in a row, the same ones, change what is thought of a
	// backend: probeThreshold, else numberOfProbes, else 1.
	Threshold int
}

// Transport is the protocol of a load balancer's rule.
type Transport string

// The transports of rules.
const (
	TransportTCP Transport = "Tcp"
	TransportUDP Transport = "Udp"
	TransportAll Transport = "All"
)

// Overlaps reports that a packet may be of both.
func (t Transport) Overlaps(other Transport) bool {
	return t == other || t == TransportAll || other == TransportAll
}

// Distribution is which fields of a packet choose the backend.
type Distribution string

// The distributions.
const (
	DistributionDefault          Distribution = "Default" // addresses, ports and protocol
	DistributionSourceIP         Distribution = "SourceIP"
	DistributionSourceIPProtocol Distribution = "SourceIPProtocol"
)

// LoadBalancingRule is a load balancing rule.
type LoadBalancingRule struct {
	Name                      string
	Frontend                  *Frontend
	Pools                     []*BackendPool
	Probe                     *HealthProbe // nil: none
	Protocol                  Transport
	FrontendPort, BackendPort uint16 // both 0 with TransportAll: every port (HA ports)
	Distribution              Distribution
	FloatingIP                bool
	TCPReset                  bool
	DisableOutboundSNAT       bool
	IdleTimeout               time.Duration
}

// InboundNATRule is an inbound NAT rule: of one port that leads to one ipConfiguration, or of a
// range, each port of which leads to one member of a pool.
type InboundNATRule struct {
	Name        string
	Frontend    *Frontend
	Protocol    Transport
	First, Last uint16 // frontend ports; equal unless Pool is set
	BackendPort uint16
	Pool        *BackendPool // of a range; else nil
	Backend     *Backend     // of one port; nil when there is none
	FloatingIP  bool
	TCPReset    bool
	IdleTimeout time.Duration
}

// OutboundRule is an outbound rule.
type OutboundRule struct {
	Name      string
	Frontends []*Frontend
	Pool      *BackendPool
	Protocol  Transport
	// AllocatedPorts are those of one backend, over all frontends; 0: as many as the size of
	// the pool gives.
	AllocatedPorts int
	TCPReset       bool
	IdleTimeout    time.Duration
}
