package arm

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
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
	CodePeeringToItself     = "VirtualNetworkPeeringToItself"               // ours
	CodeInvalidPeeringState = "VirtualNetworkPeeringInvalidState"           // ours
	CodeTooManyPeered       = "VirtualNetworkPeeringInvalidNumberOfSubnets" // ours
	CodePeeredOnOneSide     = "VirtualNetworkPeeringOfOtherSubnets"         // ours; in Documents.Warnings
)

// maxPeeredSubnets is Azure's limit of the subnets of both sides of a peering.
const maxPeeredSubnets = 200

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
			OfSubnets:                 !f.flag("peerCompleteVnets", true),
			OnlyIPv6:                  f.flag("enableOnlyIPv6Peering", false),
			State:                     f.peeringState(),
		}
		p.RemoteAddressSpace = f.remoteSpace(p.OfSubnets)
		f.checkPeered(&p)
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

const localSubnets, remoteSubnets = "localSubnetNames", "remoteSubnetNames"

// checkPeered checks the number of a peering's subnets.
func (f *fields) checkPeered(p *policy.Peering) {
	if !p.OfSubnets {
		return
	}
	total := 0
	for _, field := range []string{localSubnets, remoteSubnets} {
		n := len(f.texts(field))
		if total += n; n == 0 && len(f.open) == 0 {
			f.fault(CodeInvalidRequestFormat, field, "", "a peering with peerCompleteVnets false needs the names of subnets")
		}
	}
	if total > maxPeeredSubnets {
		f.fault(CodeTooManyPeered, remoteSubnets, strconv.Itoa(total), "a peering has at most %d subnets of both sides together", maxPeeredSubnets)
	}
}

// relateSubnets finds the subnets of a network that a field of a peering names.
func (f *fields) relateSubnets(field string, v *policy.VirtualNetwork) (list []*policy.Subnet) {
	for _, name := range f.texts(field) {
		e, _ := f.l.index.resolve(subnetKind, v.ID+"/"+kindPaths[subnetKind]+"/"+name, f.file)
		switch {
		case e == nil:
			f.fault(CodeInvalidResourceReference, field, name, "virtual network %q has no subnet of this name", v.Name)
		case e.object == nil: // nobody reaches what was not read
		default:
			list = append(list, e.object.(*policy.Subnet))
		}
	}
	return list
}

// remoteSpace reads the other network's address space under the field's old or new name. Where subnets
// are peered, the old one has their prefixes.
func (f *fields) remoteSpace(ofSubnets bool) []netip.Prefix {
	names := []string{"remoteVirtualNetworkAddressSpace", "remoteAddressSpace"}
	if ofSubnets {
		names = names[1:]
	}
	for _, field := range names {
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
		for i := range v.Peerings {
			l.peerings[v][i].matchSubnets(v, &v.Peerings[i])
		}
	}
	for _, v := range l.out.Set.VirtualNetworks {
		for i := range v.Peerings {
			p := &v.Peerings[i]
			if back := otherSide(v, p); back != nil && back.OfSubnets {
				p.LocalSubnets = slices.DeleteFunc(p.LocalSubnets, func(s *policy.Subnet) bool { return !slices.Contains(back.RemoteSubnets, s) })
			}
		}
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
	if p.OfSubnets {
		p.LocalSubnets = f.relateSubnets(localSubnets, v)
		if p.Remote != nil {
			p.RemoteSubnets = f.relateSubnets(remoteSubnets, p.Remote)
		}
	}
}

// otherSide is the other network's peering; nil when the documents have none.
func otherSide(v *policy.VirtualNetwork, p *policy.Peering) *policy.Peering {
	if p.Remote == nil {
		return nil
	}
	return p.Remote.Peering(v)
}

// matchSubnets keeps of a peering's remote subnets those that the other side names too. What is peered
// whole has all subnets.
func (f *fields) matchSubnets(v *policy.VirtualNetwork, p *policy.Peering) {
	back := otherSide(v, p)
	if back == nil || !back.OfSubnets && !p.OfSubnets {
		return
	}
	if !p.OfSubnets {
		p.OfSubnets, p.LocalSubnets, p.RemoteSubnets = true, slices.Clone(v.Subnets), p.Remote.Subnets
	}
	other := func(s *policy.Subnet) bool { return !back.Takes(s) }
	if i := slices.IndexFunc(p.RemoteSubnets, other); i >= 0 {
		f.l.warn(f.newFault(CodePeeredOnOneSide, remoteSubnets, p.RemoteSubnets[i].Name,
			fmt.Sprintf("peering %q of virtual network %q does not name the subnet: nothing is peered but what both sides name", back.Name, p.Remote.Name)))
		p.RemoteSubnets = slices.DeleteFunc(slices.Clone(p.RemoteSubnets), other)
	}
}

// checkPeers compares the address spaces of a network and of its peers.
func (l *loader) checkPeers(v *policy.VirtualNetwork, places []*fields) {
	for i := range v.Peerings {
		p, f := &v.Peerings[i], places[i]
		if own, theirs, ok := overlap(v.AddressSpace, p.Space()); ok && !p.OfSubnets {
			f.fault(CodePeerSpaceOverlap, "remoteVirtualNetwork", p.RemoteVirtualNetworkID,
				"the address spaces of peers must not overlap; %s of the one is in conflict with %s of the other", own, theirs)
		} else if p.OfSubnets {
			f.checkSubnetSpaces(v, p)
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

// checkSubnetSpaces checks that the subnets that a network peers are in parts of its address space that
// the other network does not have.
func (f *fields) checkSubnetSpaces(v *policy.VirtualNetwork, p *policy.Peering) {
	others := p.Space()
	if p.Remote != nil {
		others = p.Remote.AddressSpace
	}
	for _, s := range p.LocalSubnets {
		for _, space := range v.AddressSpace {
			if _, within, ok := overlap(s.Prefixes, []netip.Prefix{space}); !ok {
				continue
			} else if _, theirs, ok := overlap([]netip.Prefix{within}, others); ok {
				f.fault(CodePeerSpaceOverlap, localSubnets, s.Name, "the subnet is in %s of the address space, which is in conflict with %s of the peer", within, theirs)
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
