package ask

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// What a translation is done by, in answers.
const (
	byPublicIP      = "publicIPAddress"
	byGateway       = "natGateway"
	byBalancing     = "loadBalancingRule"
	byInboundNAT    = "inboundNatRule"
	byOutboundRule  = "outboundRule"
	byDefaultAccess = "defaultOutboundAccess"
)

// explain says what changes a flow that src sends as t on its way w, in the policy's words. The
// topology has decided; this only finds out which resource has the addresses.
func explain(s *topology.Snapshot, src *topology.Endpoint, t *packet.Tuple, w *topology.Way) (list []azure.Translation) {
	x := explainer{s: s, t: t, w: w, port: t.Proto == packet.ProtoTCP || t.Proto == packet.ProtoUDP}
	if w.Floating || w.Arrives.Dst != t.Dst || x.port && w.Arrives.DstPort != t.DstPort {
		list = append(list, x.destination())
	}
	if len(w.Ports) > 0 || w.Arrives.Src != t.Src {
		list = append(list, x.source(src))
	}
	return list
}

type explainer struct {
	s    *topology.Snapshot
	t    *packet.Tuple
	w    *topology.Way
	port bool // the protocol has ports
}

func (x *explainer) end(a packet.Addr, port uint16) string {
	if !x.port {
		return a.String()
	}
	return netip.AddrPortFrom(a.Netip(), port).String()
}

// destination explains what has become of the address that the flow is sent to.
func (x *explainer) destination() azure.Translation {
	r := azure.Translation{Side: "destination", From: x.end(x.t.Dst, x.t.DstPort), To: x.end(x.w.Arrives.Dst, x.w.Arrives.DstPort),
		FloatingIP: x.w.Floating}
	if nic := interfaceOf(x.w.To); nic != nil {
		r.NetworkInterface = nic.Name
		if p := publicAddress(nic, x.t.Dst.Netip()); p != nil {
			r.By, r.Resource = byPublicIP, p.Name
			return r
		}
	}
	for _, b := range x.s.Policy.LoadBalancers {
		if by, rule := x.frontendRule(b); by != "" {
			r.By, r.Resource, r.Rule = by, b.Name, rule
			return r
		}
	}
	return r
}

// frontendRule finds the rule of a load balancer that takes the flow, inbound NAT rules first.
func (x *explainer) frontendRule(b *policy.LoadBalancer) (by, rule string) {
	at := func(f *policy.Frontend, protocol policy.Transport) bool {
		return f != nil && f.Address.IsValid() && packet.AddrFrom(f.Address) == x.t.Dst && x.is(protocol)
	}
	for _, r := range b.NATRules {
		if at(r.Frontend, r.Protocol) && r.First <= x.t.DstPort && x.t.DstPort <= r.Last {
			return byInboundNAT, r.Name
		}
	}
	for _, r := range b.Rules {
		if at(r.Frontend, r.Protocol) && (r.FrontendPort == x.t.DstPort || r.FrontendPort == 0) {
			return byBalancing, r.Name
		}
	}
	return "", ""
}

// is reports whether the flow is of a load balancer's protocol.
func (x *explainer) is(protocol policy.Transport) bool {
	switch protocol {
	case policy.TransportTCP:
		return x.t.Proto == packet.ProtoTCP
	case policy.TransportUDP:
		return x.t.Proto == packet.ProtoUDP
	}
	return true
}

// source explains which address the outside sees.
func (x *explainer) source(src *topology.Endpoint) azure.Translation {
	r := azure.Translation{Side: "source", From: x.end(x.t.Src, x.t.SrcPort), To: x.end(x.w.Arrives.Src, x.w.Arrives.SrcPort)}
	seen := x.w.Arrives.Src
	if len(x.w.Ports) > 0 {
		if seen == x.t.Src { // refused before an address was chosen
			seen = x.w.Ports[0].Address
		}
		r.To = seen.String()
	}
	nic := interfaceOf(src)
	if nic != nil {
		r.NetworkInterface = nic.Name
	}
	switch {
	case src != nil && src.Subnet != nil && src.Subnet.NATGateway != nil && slices.Contains(src.Subnet.NATGateway.PublicAddresses(), seen.Netip()):
		r.By, r.Resource = byGateway, src.Subnet.NATGateway.Name
	case nic != nil && publicAddress(nic, seen.Netip()) != nil:
		r.By, r.Resource = byPublicIP, publicAddress(nic, seen.Netip()).Name
	default:
		if r.By, r.Resource, r.Rule = x.outbound(seen.Netip()); r.By == "" {
			r.By = byDefaultAccess
		}
	}
	return r
}

// outbound finds the load balancer that lends an address: by an outbound rule, else by a
// load balancing rule.
func (x *explainer) outbound(a netip.Addr) (by, balancer, rule string) {
	for _, b := range x.s.Policy.LoadBalancers {
		for _, r := range b.OutboundRules {
			for _, f := range r.Frontends {
				if x.is(r.Protocol) && slices.Contains(f.Outbound(), a) {
					return byOutboundRule, b.Name, r.Name
				}
			}
		}
		for _, r := range b.Rules {
			if !r.DisableOutboundSNAT && x.is(r.Protocol) && r.Frontend != nil && slices.Contains(r.Frontend.Outbound(), a) {
				return byBalancing, b.Name, r.Name
			}
		}
	}
	return "", "", ""
}

func interfaceOf(e *topology.Endpoint) *policy.NetworkInterface {
	if e == nil {
		return nil
	}
	return e.NetworkInterface
}

// publicAddress is the public IP of a NIC that has an address; nil when none has.
func publicAddress(nic *policy.NetworkInterface, a netip.Addr) *policy.PublicIPAddress {
	if c := behind(nic, a); c != nil {
		return c.PublicIPAddress
	}
	return nil
}

// behind is the ipConfiguration of a NIC that has a public address.
func behind(nic *policy.NetworkInterface, a netip.Addr) *policy.IPConfiguration {
	for i := range nic.IPConfigurations {
		if c := &nic.IPConfigurations[i]; c.PublicIPAddress != nil && c.PublicIPAddress.Address.IsValid() && c.PublicIPAddress.Address == a {
			return c
		}
	}
	return nil
}

// owned says what resource of the policy has a public or frontend address; empty for none.
func owned(policy *policy.Set, a netip.Addr) string {
	for _, b := range policy.LoadBalancers {
		for _, f := range b.Frontends {
			if f.Address.IsValid() && f.Address == a {
				return "a frontend of load balancer " + b.Name
			}
		}
	}
	for _, g := range policy.NATGateways {
		if slices.Contains(g.PublicAddresses(), a) {
			return "NAT gateway " + g.Name + "'s"
		}
	}
	for _, p := range policy.PublicIPAddresses {
		if p.Address.IsValid() && p.Address == a {
			return "public IP address " + p.Name
		}
	}
	return ""
}
