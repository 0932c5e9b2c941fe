package policy

import (
	"net/netip"
	"time"
)

// SKU is the SKU of a public address, NAT gateway or load balancer.
type SKU string

// The SKUs. Without one in the document, a NAT gateway is Standard and anything else Basic.
const (
	SKUBasic      SKU = "Basic"
	SKUStandard   SKU = "Standard"
	SKUStandardV2 SKU = "StandardV2"
	SKUGateway    SKU = "Gateway" // of load balancers
)

// Closed reports whether nothing comes in where there is no network security group.
func (s SKU) Closed() bool { return s != SKUBasic }

// PublicIPAddress is a public IP address.
type PublicIPAddress struct {
	Name string
	ID   string
	SKU  SKU
	// Address is not valid when it is not known, because Azure will choose it. It then
	// translates nothing.
	Address     netip.Addr
	IPv6        bool // known even if Address is not
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
	// Unknown means that some of its addresses are not known, so neither is its translation.
	Unknown bool
}

// PublicAddresses are the known addresses of the gateway in the document's order, those of
// prefixes last.
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

// Addresses are all addresses of a prefix; none when it is not known.
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

// Frontend is a frontend IP configuration of a load balancer: a public address, a range of
// public addresses for outbound rules, or an address in a subnet.
type Frontend struct {
	Name            string
	ID              string
	PublicIPAddress *PublicIPAddress // nil when it has none
	PublicIPPrefix  *PublicIPPrefix  // nil when it has none
	Subnet          *Subnet          // of an internal frontend; else nil
	// Address is the public address or the one in the subnet. It is not valid when it is not
	// known; the frontend then translates nothing.
	Address netip.Addr
	IPv6    bool // known even if Address is not
}

// Public reports whether the internet reaches the frontend.
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
	// Backends are the members that the pool lists, then the ipConfigurations that name the
	// pool, in the order of the documents.
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
	// Threshold is the number of equal answers in a row that change a backend's state:
	// probeThreshold, else numberOfProbes, else 1.
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

// Overlaps reports whether a packet may match both.
func (t Transport) Overlaps(other Transport) bool {
	return t == other || t == TransportAll || other == TransportAll
}

// Distribution says which fields of a packet choose the backend.
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

// InboundNATRule is an inbound NAT rule. It has one port that leads to one
// ipConfiguration, or a range of ports, each for one member of a pool.
type InboundNATRule struct {
	Name        string
	Frontend    *Frontend
	Protocol    Transport
	First, Last uint16 // frontend ports; equal unless Pool is set
	BackendPort uint16
	Pool        *BackendPool // set for a range of ports
	Backend     *Backend     // of the one port; nil when there is none
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
	// AllocatedPorts is the number of ports of one backend, over all frontends. 0: the size
	// of the pool decides.
	AllocatedPorts int
	TCPReset       bool
	IdleTimeout    time.Duration
}
