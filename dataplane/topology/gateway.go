package topology

import (
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// gatewaySubnet is the name of the subnet that a gateway stands in; its route table holds
// for what comes from on-premises.
const gatewaySubnet = "GatewaySubnet"

// learn finds the gateways among the attachments, and what they and those who borrow them
// know of on-premises networks.
func (b *builder) learn(specs []Spec) {
	for i, spec := range specs {
		if spec.Kind != Gateway {
			continue
		}
		v, err := b.s.Policy.VirtualNetwork(spec.Reference)
		if err != nil {
			continue // attach reports it
		}
		n := b.networks[v]
		n.gateway = &Endpoint{Attachment: i}
		for _, p := range spec.Prefixes {
			p = p.Masked()
			n.learned = append(n.learned, p)
			if p.Bits() > 0 {
				b.s.learned.Insert(p)
			} else {
				b.s.routed = true // the internet is answered by way of the gateway
			}
		}
	}
	for _, n := range b.s.networks {
		n.known = n.learned
		if lender := n.lender(); lender != nil {
			n.known = lender.network.learned
		}
	}
}

// lender is the peer whose gateway a network borrows; nil when it has its own, or none.
func (n *network) lender() *peer {
	for i := range n.peers {
		p := &n.peers[i]
		if p.peering.UseRemoteGateways && p.back != nil && p.back.AllowGatewayTransit && n.gateway == nil && p.network.gateway != nil {
			return p
		}
	}
	return nil
}

// gatewayHop leads to the network's own gateway or to the borrowed one.
func (b *builder) gatewayHop(n *network) *hop {
	h := &hop{kind: policy.HopGateway, endpoint: n.gateway, drop: packet.DropNoRoute}
	if lender := n.lender(); lender != nil {
		h.endpoint, h.senders = lender.network.gateway, lender.senders(n)
	}
	return h
}

// fillGateway enters the routes of what comes from on-premises: to the network, to the
// peers that borrow the gateway, and as the gateway subnet's route table says; not beyond
// to the internet.
func (b *builder) fillGateway(n *network) {
	r := &routes{network: n}
	n.gateway.routes = r
	for _, s := range n.vnet.Subnets {
		if strings.EqualFold(s.Name, gatewaySubnet) {
			r.table = s.RouteTable
		}
	}
	local := &hop{kind: policy.HopVnetLocal, hosts: &n.hosts, drop: packet.DropNoRoute}
	for _, p := range n.vnet.AddressSpace {
		r.hops.Insert(p, local)
	}
	for i := range n.peers {
		peer := &n.peers[i]
		if peer.network == nil {
			continue
		}
		if lender := peer.network.lender(); lender == nil || lender.network != n {
			continue
		}
		h := &hop{kind: HopPeering, hosts: &peer.network.hosts, drop: packet.DropNoRoute}
		for _, p := range peer.space {
			r.hops.Insert(p, h)
		}
	}
	b.fillTable(r)
}

// attachGateway places a gateway's attachment.
func (b *builder) attachGateway(a *Attachment, spec *Spec) (of *policy.VirtualNetwork, ok bool) {
	v, err := b.s.Policy.VirtualNetwork(spec.Reference)
	if err != nil {
		b.fail("attachment %d: %w", a.Index, err)
		return nil, false
	}
	a.Name, a.id, a.network, a.prefixes = v.Name+"/"+gatewaySubnet, v.ID+"/"+gatewaySubnet, b.networks[v], b.networks[v].learned
	if len(spec.Prefixes) == 0 {
		b.fail("attachment %d: the gateway of virtual network %q has no prefixes: those of the networks behind it are needed", a.Index, v.Name)
	}
	for _, p := range spec.Prefixes {
		for _, space := range v.AddressSpace {
			if p.Bits() > 0 && p.Overlaps(space) && p.Bits() >= space.Bits() {
				b.fail("attachment %d: prefix %s of the gateway lies within the address space of its virtual network %q: %s", a.Index, p, v.Name, space)
			}
		}
	}
	return v, true
}

// admitGateway: on-premises has the addresses of the gateway's prefixes, but for those of
// the networks that it reaches.
func (s *Snapshot) admitGateway(a *Attachment, src netip.Addr) *Endpoint {
	n := a.network
	if s.public[packet.AddrFrom(src)] != nil || !within(a.prefixes, src) || within(n.vnet.AddressSpace, src) || isPlatform(packet.AddrFrom(src)) {
		return nil
	}
	for i := range n.peers {
		if within(n.peers[i].space, src) {
			return nil
		}
	}
	return n.gateway
}
