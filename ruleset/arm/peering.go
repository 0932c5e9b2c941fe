package arm

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for peerings. VnetAddressSpaceOverlapsWithAlreadyPeeredVnet is Azure's
// (Azure/ResourceModules issue 731). The others that are not marked are probably Azure's;
// no recording of them was found.
const (
	CodePeerSpaceOverlap    = "VnetAddressSpacesOverlap"
	CodePeerSpacesOverlap   = "VnetAddressSpaceOverlapsWithAlreadyPeeredVnet"
	CodePeeringTwice        = "AnotherPeeringAlreadyReferencesRemoteVnet"
	CodePeeringToItself     = "VirtualNetworkPeeringToItself"              // ours
	CodeInvalidPeeringState = "VirtualNetworkPeeringInvalidState"          // ours
	CodePeeringOfSubnets    = "VirtualNetworkPeeringOfSubnetsNotSupported" // ours; in Documents.Unresolved
)

var peeringStates = []string{policy.PeeringInitiated, policy.PeeringConnected, policy.PeeringDisconnected}

// readPeerings reads a network's peerings, and the fields of each for later faults.
func (l *loader) readPeerings(children []*resource) (peerings []policy.Peering, places []*fields) {
	for _, c := range children {
		f := l.read(c.file, c.place(), "", c.body)
		p := policy.Peering{
			Name:                      c.name,
			RemoteVirtualNetworkID:    f.reference("remoteVirtualNetwork"),
			AllowVirtualNetworkAccess: f.flag("allowVirtualNetworkAccess", true),
			AllowForwardedTraffic:     f.flag("allowForwardedTraffic", false),
			AllowGatewayTransit:       f.flag("allowGatewayTransit", false),
			UseRemoteGateways:         f.flag("useRemoteGateways", false),
			RemoteAddressSpace:        f.remoteSpace(),
			State:                     f.peeringState(),
		}
		if !f.flag("peerCompleteVnets", true) {
			f.markOpenBecause(CodePeeringOfSubnets, "peerCompleteVnets", "false", "peerings of single subnets are not supported: the peering was not read")
		}
		f.markCondition(c)
		switch {
		case len(f.open) > 0:
		case p.RemoteVirtualNetworkID == "":
			f.fault(CodeInvalidResourceReference, "remoteVirtualNetwork", "", "a peering needs the id of the other virtual network")
		default:
			peerings = append(peerings, p)
			places = append(places, f)
		}
	}
	return peerings, places
}

// remoteSpace reads the other network's address space under the field's old or new name.
func (f *fields) remoteSpace() []netip.Prefix {
	for _, field := range []string{"remoteVirtualNetworkAddressSpace", "remoteAddressSpace"} {
		space := f.object(field)
		if space == nil {
			continue
		}
		s := &fields{l: f.l, file: f.file, place: f.place, values: space, open: f.open}
		if len(s.objectOrList("addressPrefixes")) > 0 { // az writes one of the two as an empty list
			prefixes := s.prefixes("addressPrefixes")
			f.because(s.cause)
			return prefixes
		}
	}
	return nil
}

func (f *fields) peeringState() string {
	const field = "peeringState"
	text := f.text(field)
	for _, state := range peeringStates {
		if strings.EqualFold(text, state) {
			return state
		}
	}
	if text != "" {
		f.fault(CodeInvalidPeeringState, field, text, "allowed are %s", strings.Join(peeringStates, ", "))
	}
	return ""
}

// relatePeerings finds the other ends, then compares both ends.
func (l *loader) relatePeerings() {
	for _, v := range l.out.Set.VirtualNetworks {
		for i := range v.Peerings {
			l.peerings[v][i].relate(v, &v.Peerings[i])
		}
	}
	for _, v := range l.out.Set.VirtualNetworks {
		l.checkPeers(v, l.peerings[v])
	}
}

func (f *fields) relate(v *policy.VirtualNetwork, p *policy.Peering) {
	e, problem := f.l.index.resolve(networkKind, p.RemoteVirtualNetworkID, f.file)
	switch {
	case e == nil && len(p.RemoteAddressSpace) > 0:
	case e == nil && networkKind.isID(p.RemoteVirtualNetworkID):
		f.missing(networkKind, "remoteVirtualNetwork", p.RemoteVirtualNetworkID,
			problem+"; a peering with a network that is not in the policy needs its remoteAddressSpace")
	case e == nil:
		f.fault(CodeInvalidResourceReference, "remoteVirtualNetwork", p.RemoteVirtualNetworkID,
			"%s; a peering with a network that is not in the policy needs its remoteAddressSpace", problem)
	case e.object == nil:
		f.dependOn(e.cause, "remoteVirtualNetwork")
	case e.object == any(v):
		f.fault(CodePeeringToItself, "remoteVirtualNetwork", p.RemoteVirtualNetworkID, "a virtual network is peered with others, this peering is with itself")
	default:
		p.Remote = e.object.(*policy.VirtualNetwork)
	}
}

// checkPeers compares the address spaces of a network and of its peers.
func (l *loader) checkPeers(v *policy.VirtualNetwork, places []*fields) {
	for i := range v.Peerings {
		p, f := &v.Peerings[i], places[i]
		if own, theirs, ok := overlap(v.AddressSpace, p.Space()); ok {
			f.fault(CodePeerSpaceOverlap, "remoteVirtualNetwork", p.RemoteVirtualNetworkID,
				"the address spaces of peers must not overlap; %s of the one is in conflict with %s of the other", own, theirs)
		}
		for j := range i {
			other := &v.Peerings[j]
			if p.Remote != nil && p.Remote == other.Remote || strings.EqualFold(p.RemoteVirtualNetworkID, other.RemoteVirtualNetworkID) {
				f.fault(CodePeeringTwice, "remoteVirtualNetwork", p.RemoteVirtualNetworkID, "peering %q is with the same virtual network; one is allowed", other.Name)
				continue
			}
			if a, b, ok := overlap(p.Space(), other.Space()); ok {
				f.fault(CodePeerSpacesOverlap, "remoteVirtualNetwork", p.RemoteVirtualNetworkID,
					"the address spaces of two peers must not overlap; %s is in conflict with %s of peering %q", a, b, other.Name)
			}
		}
	}
}

// overlap finds the first prefix of a that overlaps one of b.
func overlap(a, b []netip.Prefix) (p, q netip.Prefix, ok bool) {
	for _, p := range a {
		if i := slices.IndexFunc(b, p.Overlaps); i >= 0 {
			return p, b[i], true
		}
	}
	return p, q, false
}
