package ask

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// EndForms says how an end is written, for messages.
const EndForms = "internet, nic:NAME, vm:NAME, subnet:[VNET/]NAME, vnet:NAME, asg:NAME, tag:NAME, publicIP:NAME, an address, a prefix, and a name that only one of these has"

// End is one side of a question about sets of packets: addresses, and who is meant by them. An End belongs to
// the snapshot that it was found in.
type End struct {
	// Text is the end as it was written.
	Text string
	// addresses are its own.
	addresses *netipx.IPSet
	// means says who is meant; nil: whoever has the addresses.
	means func(*topology.Endpoint) bool
	// standing are addresses that may stand for who is meant: public ones, and frontends.
	standing *netipx.IPSet
	// given means that the addresses themselves were written.
	given bool
	// sends is who sends, where the addresses only stand for somebody; nil: those who have them.
	sends *End
}

// Everybody is the end that everybody is: the internet, all networks, and the platform.
func Everybody() *End { return &End{Text: "anybody", addresses: setOfPrefixes(everyAddress)} }

// End finds an end by what a person writes, see EndForms. The error names candidates where a name is unknown or
// ambiguous.
func (b *Between) End(text string) (*End, error) {
	e, err := b.findEnd(text)
	if err != nil {
		return nil, fmt.Errorf("end %q: %w", text, err)
	}
	e.Text = text
	return e, nil
}

func (b *Between) findEnd(text string) (*End, error) {
	s := b.snapshot
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return addressEnd(s, a.Unmap()), nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if p != p.Masked() {
			return nil, fmt.Errorf("it has bits behind its length: %s would be the prefix", p.Masked())
		}
		return &End{addresses: setOfPrefixes([]netip.Prefix{p}), given: true}, nil
	}
	if strings.EqualFold(text, "internet") {
		return b.internet(), nil
	}
	kind, name, qualified := strings.Cut(text, ":")
	if !qualified {
		var err error
		if kind, name, err = kindOfName(s.Policy, text); err != nil {
			return nil, err
		}
	}
	for i := range endKinds {
		if strings.EqualFold(endKinds[i].name, kind) {
			return endKinds[i].find(s, name)
		}
	}
	return nil, fmt.Errorf("%q is no kind of end: allowed are %s", kind, EndForms)
}

// endKind is a kind of end that has a name.
type endKind struct {
	name  string
	names func(*policy.Set) []string
	find  func(*topology.Snapshot, string) (*End, error)
}

var endKinds = []endKind{
	{"nic", func(p *policy.Set) []string {
		return texts(p.NetworkInterfaces, func(n *policy.NetworkInterface) string { return n.Name })
	}, func(s *topology.Snapshot, name string) (*End, error) {
		nic, err := s.Policy.NetworkInterface(name)
		return membersEnd(s, err, func(e *topology.Endpoint) bool { return e.NetworkInterface == nic })
	}},
	{"vm", func(p *policy.Set) []string { return p.VirtualMachines() }, func(s *topology.Snapshot, name string) (*End, error) {
		nics, err := s.Policy.VirtualMachine(name)
		return membersEnd(s, err, func(e *topology.Endpoint) bool { return slices.Contains(nics, e.NetworkInterface) })
	}},
	{"subnet", subnetNames, func(s *topology.Snapshot, name string) (*End, error) {
		sub, err := s.Policy.Subnet(name)
		return membersEnd(s, err, func(e *topology.Endpoint) bool { return e.Subnet == sub })
	}},
	{"vnet", func(p *policy.Set) []string {
		return texts(p.VirtualNetworks, func(v *policy.VirtualNetwork) string { return v.Name })
	}, func(s *topology.Snapshot, name string) (*End, error) {
		vnet, err := s.Policy.VirtualNetwork(name)
		return membersEnd(s, err, func(e *topology.Endpoint) bool { return e.Subnet != nil && e.Subnet.VirtualNetwork == vnet })
	}},
	{"asg", func(p *policy.Set) []string {
		return texts(p.ApplicationSecurityGroups, func(g *policy.ApplicationSecurityGroup) string { return g.Name })
	}, groupEnd},
	{"publicIP", func(p *policy.Set) []string {
		return texts(p.PublicIPAddresses, func(a *policy.PublicIPAddress) string { return a.Name })
	}, func(s *topology.Snapshot, name string) (*End, error) {
		public, err := s.Policy.PublicIPAddress(name)
		switch {
		case err != nil:
			return nil, err
		case !public.Address.IsValid():
			return nil, fmt.Errorf("the address of public IP address %q is not known: Azure will choose it", public.Name)
		}
		return addressEnd(s, public.Address), nil
	}},
	{"tag", tagNames, tagEnd},
}

func subnetNames(p *policy.Set) (names []string) {
	for _, v := range p.VirtualNetworks {
		for _, sub := range v.Subnets {
			names = append(names, v.Name+"/"+sub.Name)
		}
	}
	return names
}

// kindOfName finds the only kind of end that has a name.
func kindOfName(p *policy.Set, text string) (kind, name string, err error) {
	var found []string
	near := ruleset.NewNearMiss(text)
	compared := 0
	for i := range endKinds {
		k := &endKinds[i]
		for _, full := range k.names(p) {
			short := full
			if k.name == "subnet" {
				_, short, _ = strings.Cut(full, "/")
			}
			if strings.EqualFold(full, text) || strings.EqualFold(short, text) {
				kind, name = k.name, full
				found = append(found, k.name+":"+full)
			}
			if compared++; compared <= maxNear {
				near.Try(k.name+":"+full, strings.ToLower(short), false)
			}
		}
	}
	switch len(found) {
	case 1:
		return kind, name, nil
	case 0:
		return "", "", fmt.Errorf("nothing of the policy has this name%s; allowed are %s", near.Hint(), EndForms)
	}
	return "", "", fmt.Errorf("several have this name: %s", ruleset.Listed(found))
}

// maxNear bounds the search for near names.
const maxNear = 2000

// addressEnd is whoever has an address. What a public one sends, the network interface sends that has it.
func addressEnd(s *topology.Snapshot, a netip.Addr) *End {
	end := &End{addresses: setOfPrefixes([]netip.Prefix{netip.PrefixFrom(a, a.BitLen())}), given: true}
	if owner := publicOwner(s, a); owner != nil {
		end.sends, _ = membersEnd(s, nil, func(e *topology.Endpoint) bool { return e == owner })
	}
	return end
}

func (b *Between) internet() *End {
	var set netipx.IPSetBuilder
	outside := func(e *topology.Endpoint) bool { return b.snapshot.KindOf(e) == topology.Internet }
	for i := range b.classes {
		if slices.ContainsFunc(b.classes[i].senders, outside) {
			addRanges(&set, b.classes[i].Ranges)
		}
	}
	return &End{addresses: setOf(&set), means: outside}
}

// membersEnd is endpoints of virtual networks.
func membersEnd(s *topology.Snapshot, err error, means func(*topology.Endpoint) bool) (*End, error) {
	if err != nil {
		return nil, err
	}
	var own, standing netipx.IPSetBuilder
	for _, e := range s.Endpoints() {
		switch {
		case !means(e):
		case e.NetworkInterface != nil:
			own.Add(e.Address())
		default:
			for _, p := range e.Subnet.Prefixes {
				own.AddPrefix(p)
			}
		}
	}
	for _, p := range s.Policy.PublicIPAddresses {
		if p.Address.IsValid() {
			standing.Add(p.Address)
		}
	}
	for _, lb := range s.Policy.LoadBalancers {
		for _, f := range lb.Frontends {
			if f.Address.IsValid() {
				standing.Add(f.Address)
			}
		}
	}
	end := &End{addresses: setOf(&own), means: means}
	standing.RemoveSet(end.addresses)
	end.standing = setOf(&standing)
	if len(end.addresses.Ranges()) == 0 {
		return nil, fmt.Errorf("no network interface of the policy is in it")
	}
	return end, nil
}

func groupEnd(s *topology.Snapshot, name string) (*End, error) {
	group, err := s.Policy.ApplicationSecurityGroup(name)
	return membersEnd(s, err, func(e *topology.Endpoint) bool {
		return e.NetworkInterface != nil && slices.ContainsFunc(e.NetworkInterface.IPConfigurations, func(c policy.IPConfiguration) bool {
			return c.Address == e.Address() && slices.Contains(c.ApplicationSecurityGroups, group.ID)
		})
	})
}

func tagNames(p *policy.Set) []string {
	names := ruleset.BuiltInTagNames()
	for tag := range p.ServiceTags {
		names = append(names, tag)
	}
	slices.Sort(names)
	return names
}

// tagEnd is the addresses of a tag. VirtualNetwork is what any subnet takes it for.
func tagEnd(s *topology.Snapshot, name string) (*End, error) {
	tag, ok := ruleset.CanonicalBuiltInTag(name)
	if !ok {
		i := slices.IndexFunc(tagNames(s.Policy), func(known string) bool { return strings.EqualFold(known, name) })
		if i < 0 {
			return nil, fmt.Errorf("no rule names a tag of that name: allowed are %s", ruleset.Listed(tagNames(s.Policy)))
		}
		tag = tagNames(s.Policy)[i]
	}
	var b netipx.IPSetBuilder
	add := func(sub *policy.Subnet) {
		prefixes, _ := s.ExpandTag(sub, tag)
		for _, p := range prefixes {
			b.AddPrefix(p)
		}
	}
	if tag != ruleset.TagVirtualNetwork {
		add(nil)
	} else {
		for _, v := range s.Policy.VirtualNetworks {
			for _, sub := range v.Subnets {
				add(sub)
			}
		}
	}
	return &End{addresses: setOf(&b), given: true}, nil
}

func setOfPrefixes(prefixes []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(p)
	}
	return setOf(&b)
}

func addRanges(b *netipx.IPSetBuilder, ranges []netipx.IPRange) {
	for _, r := range ranges {
		b.AddRange(r)
	}
}
