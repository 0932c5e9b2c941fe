package ask

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// Diff compares two policies for all packets of all their endpoints: admin rules, NSGs, the platform's
// services, addresses that are closed without an NSG, and ways from the internet that only one policy has. Routes and
// other translation are not compared.
func Diff(old, new *topology.Snapshot, o DiffOptions) *DiffResult {
	d := &differ{options: o, same: map[[2]*analysis.List]bool{}, effect: map[DiffRule]bool{},
		before: newSideOf(old), after: newSideOf(new),
		result: &DiffResult{Changes: []DiffChange{}, RulesWithoutEffect: []DiffRule{}, Undecided: []DiffUndecided{}, Open: []DiffOpen{}, Added: []string{}, Removed: []string{}}}
	for _, key := range d.before.order {
		if d.after.targets[key] == nil {
			d.result.Removed = append(d.result.Removed, d.before.targets[key].full)
		}
	}
	for _, key := range d.after.order {
		now := d.after.targets[key]
		was := d.before.targets[key]
		if was == nil {
			d.result.Added = append(d.result.Added, now.full)
			continue
		}
		for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			d.compare(was, now, direction)
		}
	}
	d.compareUnused()
	d.finish()
	return d.result
}

// diffTarget is one place where packets are judged: an endpoint, or a group that nobody has.
type diffTarget struct {
	endpoint *topology.Endpoint
	group    *topology.Group
	name     string
	full     string         // name and address
	own      []netip.Prefix // the addresses that are its own
}

// diffSide is one of the two policies.
type diffSide struct {
	snapshot *topology.Snapshot
	chains   *verdict.Chains
	targets  map[string]*diffTarget
	order    []string
	names    map[*policy.Subnet]*analysis.Names

	// of questions about paths, see between
	paths *Between
	nics  *netipx.IPSet // the addresses of all network interfaces
}

func newSideOf(s *topology.Snapshot) *diffSide {
	side := &diffSide{snapshot: s, chains: verdict.NewChains(s), targets: map[string]*diffTarget{}, names: map[*policy.Subnet]*analysis.Names{}}
	names := map[string]int{}
	for _, nic := range s.Policy.NetworkInterfaces {
		names[strings.ToLower(nic.Name)]++
	}
	for _, e := range s.Endpoints() {
		t := &diffTarget{endpoint: e, own: e.Judged()}
		if nic := e.NetworkInterface; nic != nil {
			t.name = nic.Name
			if names[strings.ToLower(nic.Name)] > 1 {
				t.name = nic.ID
			}
			t.full = t.name + " " + e.Address().String()
		} else {
			t.own = othersOf(s, e)
			t.name = e.Subnet.VirtualNetwork.Name + "/" + e.Subnet.Name
			t.full = t.name
		}
		key := targetKey(e)
		side.targets[key] = t
		side.order = append(side.order, key)
	}
	return side
}

// targetKey is equal for an endpoint of virtual networks in two policies; empty: it is none of these.
func targetKey(e *topology.Endpoint) string {
	switch {
	case e.NetworkInterface != nil:
		return strings.ToLower(e.NetworkInterface.ID) + " " + e.Address().String()
	case e.Subnet != nil:
		return strings.ToLower(e.Subnet.ID)
	}
	return ""
}

// othersOf are a subnet's addresses, without those of network interfaces that other groups judge, or that are closed.
func othersOf(s *topology.Snapshot, e *topology.Endpoint) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range e.Subnet.Prefixes {
		b.AddPrefix(p)
	}
	sameStages := func(a, b topology.Stage) bool { return a.Group == b.Group && a.Association == b.Association }
	for _, o := range s.Endpoints() {
		if o.NetworkInterface != nil && o.Subnet == e.Subnet && (o.Closed() != e.Closed() ||
			!(slices.EqualFunc(o.Inbound, e.Inbound, sameStages) && slices.EqualFunc(o.AdminInbound, e.AdminInbound, sameStages))) {
			b.Remove(o.Address())
		}
	}
	return setOf(&b).Prefixes()
}

type differ struct {
	options       DiffOptions
	before, after *diffSide
	same          map[[2]*analysis.List]bool
	// effect says of each changed rule whether it decides packets that are treated differently.
	effect map[DiffRule]bool
	groups map[string]*diffGroup
	result *DiffResult
}

// diffGroup is a change that several targets share.
type diffGroup struct {
	change int // index in the result
	own    []netipx.IPSetBuilder
	raw    []analysis.Box // of the first target
	// ends are the targets' own addresses, and targets their keys; forwards says that one of them gets packets for others too.
	ends     netipx.IPSetBuilder
	targets  map[string]bool
	forwards bool
}

func (d *differ) compare(was, now *diffTarget, direction ruleset.Direction) {
	var chains [2]*verdict.Chain
	for i, side := range []*diffSide{d.before, d.after} {
		t := []*diffTarget{was, now}[i]
		if t.group != nil {
			chains[i] = side.chains.OfGroup(t.group, direction)
		} else {
			chains[i] = side.chains.Of(t.endpoint, direction)
		}
	}
	if d.open(now, direction, chains) || d.sameChains(chains[0], chains[1]) {
		return
	}
	for _, own := range byFamily(common(was.own, now.own)) {
		if len(own) > 0 {
			d.compareFamily(now, direction, chains, own)
		}
	}
}

// byFamily are the prefixes of each family, so that a change's boxes and witness are of one.
func byFamily(prefixes []netip.Prefix) (families [2][]netip.Prefix) {
	for _, p := range prefixes {
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		families[family] = append(families[family], p)
	}
	return families
}

func (d *differ) compareFamily(t *diffTarget, direction ruleset.Direction, chains [2]*verdict.Chain, own []netip.Prefix) {
	options := analysis.Options{MaxStates: d.options.MaxStates, Within: analysis.Packets{Sources: own}}
	if direction == ruleset.Inbound {
		options.Within = analysis.Packets{Destinations: own}
	}
	answer := analysis.Compare(chains[0].Lists, chains[1].Lists, options)
	for i := range answer.Changes {
		d.add(t, direction, chains, &answer.Changes[i], rangesOf(own))
	}
	for i := range answer.Rules {
		d.note(direction, chains, &answer.Rules[i])
	}
	for i := range answer.Undecided {
		u := &answer.Undecided[i]
		rule := decisionOf(chainOf(chains, u.New).At(u.Stage, u.Rule), ruleset.Deny)
		box := boxOf(&u.Box, d.after.namesFor(t))
		d.result.Undecided = append(d.result.Undecided, DiffUndecided{Direction: direction.String(), DiffFor: t.names(),
			NetworkSecurityGroup: rule.NetworkSecurityGroup, RuleName: rule.RuleName, Box: &box})
	}
}

func chainOf(chains [2]*verdict.Chain, new bool) *verdict.Chain {
	if new {
		return chains[1]
	}
	return chains[0]
}

// sameChains reports chains with equal rules. Endpoints share lists, so that each pair is compared
// once.
func (d *differ) sameChains(a, b *verdict.Chain) bool {
	for i := range a.Lists {
		pair := [2]*analysis.List{a.Lists[i], b.Lists[i]}
		same, known := d.same[pair]
		if !known {
			same = pair[0].Equal(pair[1])
			d.same[pair] = same
		}
		if !same {
			return false
		}
	}
	return true
}

// common are the addresses of both.
func common(a, b []netip.Prefix) []netip.Prefix {
	if slices.Equal(a, b) {
		return b
	}
	var x, y netipx.IPSetBuilder
	for _, p := range a {
		x.AddPrefix(p)
	}
	for _, p := range b {
		y.AddPrefix(p)
	}
	x.Intersect(setOf(&y))
	return setOf(&x).Prefixes()
}

func (t *diffTarget) names() (n DiffFor) {
	n.NetworkInterfaces = []string{}
	switch {
	case t.group != nil:
		n.NetworkSecurityGroups = []string{t.name}
	case t.endpoint.NetworkInterface != nil:
		n.NetworkInterfaces = []string{t.name}
	default:
		n.Subnets = []string{t.name}
	}
	return n
}

// add adds a target's change to that of others which change alike: by the same rules, for the same
// addresses of the other end.
func (d *differ) add(t *diffTarget, direction ruleset.Direction, chains [2]*verdict.Chain, c *analysis.Change, whole []netipx.IPRange) {
	change := DiffChange{Kind: DiffDenied, Direction: direction.String(), DiffFor: t.names(),
		Old:  decisionOf(chains[0].At(c.Old.Stage, c.Old.Rule), c.Old.Access),
		New:  decisionOf(chains[1].At(c.New.Stage, c.New.Rule), c.New.Access),
		More: c.More, Witness: witnessOf(&c.Witness)}
	if c.New.Access == ruleset.Allow {
		change.Kind = DiffAllowed
	}
	own := func(b *analysis.Box) *[]netipx.IPRange {
		if direction == ruleset.Inbound {
			return &b.Destinations
		}
		return &b.Sources
	}
	key := fmt.Sprint(change.Kind, direction, change.Old, change.New)
	for i := range c.Boxes {
		b := c.Boxes[i]
		if ranges := *own(&b); slices.Equal(ranges, whole) {
			*own(&b) = nil // all of its own addresses
		}
		key += "\n" + b.String()
	}
	g := d.groups[key]
	if g == nil {
		if d.groups == nil {
			d.groups = map[string]*diffGroup{}
		}
		g = &diffGroup{change: len(d.result.Changes), targets: map[string]bool{}, own: make([]netipx.IPSetBuilder, len(c.Boxes)), raw: c.Boxes}
		d.groups[key] = g
		for i := range c.Boxes {
			change.Boxes = append(change.Boxes, boxOf(&c.Boxes[i], d.after.namesFor(t)))
		}
		d.result.Changes = append(d.result.Changes, change)
	} else {
		shared := &d.result.Changes[g.change]
		shared.join(&change.DiffFor)
	}
	g.joins(t)
	for i := range c.Boxes {
		for _, r := range *own(&c.Boxes[i]) {
			g.own[i].AddRange(r)
		}
	}
}

// rangesOf are prefixes as a box has them.
func rangesOf(prefixes []netip.Prefix) []netipx.IPRange {
	var b netipx.IPSetBuilder
	for _, p := range prefixes {
		b.AddPrefix(p)
	}
	return setOf(&b).Ranges()
}

func addNew(list, more []string) []string {
	for _, name := range more {
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

// note remembers whether a changed rule has an effect anywhere.
func (d *differ) note(direction ruleset.Direction, chains [2]*verdict.Chain, r *analysis.ChangedRule) {
	rule := chainOf(chains, r.New).At(r.Stage, r.Rule)
	if rule.Group == nil || rule.Rule.Default {
		return // it changed because a tag did
	}
	named := DiffRule{NetworkSecurityGroup: rule.Group.Label, Direction: direction.String(), RuleName: rule.Rule.QualifiedName()}
	named.Change = map[bool]string{true: "added", false: "removed"}[r.New]
	if other := chainOf(chains, !r.New); other.Has(rule.Group.NSG, rule.Rule) {
		named.Change = "changed"
	}
	d.effect[named] = d.effect[named] || r.Effective
}

// compareUnused compares the groups that no endpoint has in either policy.
func (d *differ) compareUnused() {
	before, after := unusedGroups(d.before.snapshot), unusedGroups(d.after.snapshot)
	for _, now := range d.after.snapshot.Groups {
		id := strings.ToLower(now.NSG.ID)
		was := before[id]
		if was == nil || after[id] == nil {
			continue
		}
		for _, direction := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			d.compare(&diffTarget{group: was, own: everyAddress}, &diffTarget{group: now, name: now.Label, own: everyAddress}, direction)
		}
	}
}

func unusedGroups(s *topology.Snapshot) map[string]*topology.Group {
	unused := map[string]*topology.Group{}
	for _, g := range s.Groups {
		if !g.NSG.Admin {
			unused[strings.ToLower(g.NSG.ID)] = g
		}
	}
	for _, e := range s.Endpoints() {
		for i := range e.Inbound {
			delete(unused, strings.ToLower(e.Inbound[i].Group.NSG.ID))
		}
	}
	return unused
}

// finish shows the own addresses of those that change alike, and puts everything in order.
func (d *differ) finish() {
	for _, g := range d.groups {
		c := &d.result.Changes[g.change]
		for i := range c.Boxes {
			b, ranges := &c.Boxes[i], setOf(&g.own[i]).Ranges()
			if c.Direction == ruleset.Inbound.String() {
				b.Destinations, b.DestinationText = addressTexts(ranges, &analysis.Names{})
			} else {
				b.Sources, b.SourceText = addressTexts(ranges, &analysis.Names{})
			}
		}
	}
	d.askPaths()
	d.compareWays() // these ask no path: they are one
	d.result.Changes = joined(d.result.Changes)
	slices.SortStableFunc(d.result.Changes, func(a, b DiffChange) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Direction, b.Direction))
	})
	for rule, effective := range d.effect {
		if !effective {
			d.result.RulesWithoutEffect = append(d.result.RulesWithoutEffect, rule)
		}
	}
	slices.SortFunc(d.result.RulesWithoutEffect, func(a, b DiffRule) int {
		return cmp.Or(cmp.Compare(a.NetworkSecurityGroup, b.NetworkSecurityGroup), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.RuleName, b.RuleName))
	})
}

// joined joins the changes of the same by the same rules: those of IPv4 and of IPv6.
func joined(changes []DiffChange) []DiffChange {
	out := []DiffChange{}
	for _, c := range changes {
		i := slices.IndexFunc(out, func(o DiffChange) bool {
			return o.Kind == c.Kind && o.Direction == c.Direction && o.Old == c.Old && o.New == c.New && o.Way == c.Way && o.DiffFor.equal(&c.DiffFor)
		})
		if i < 0 {
			out = append(out, c)
			continue
		}
		out[i].Boxes, out[i].More = append(out[i].Boxes, c.Boxes...), out[i].More || c.More
		out[i].EndToEnd = out[i].EndToEnd.join(c.EndToEnd)
	}
	return out
}

func (f *DiffFor) equal(o *DiffFor) bool {
	return slices.Equal(f.NetworkInterfaces, o.NetworkInterfaces) && slices.Equal(f.Subnets, o.Subnets) &&
		slices.Equal(f.NetworkSecurityGroups, o.NetworkSecurityGroups)
}

func decisionOf(r verdict.ChainRule, access ruleset.Access) DiffDecision {
	d := DiffDecision{Access: access.String(), Reason: ReasonNoGroup}
	if r.Group != nil {
		d.NetworkSecurityGroup, d.RuleName, d.Reason = r.Group.Label, r.Rule.QualifiedName(), ReasonRule
	}
	switch {
	case r.Closed:
		d.Reason = ReasonOf(packet.DropClosed)
	case r.Service != topology.NoService && access == ruleset.Allow:
		d.Reason = ReasonPlatform // also by a rule that names it
	}
	return d
}

func texts[E any](list []E, text func(E) string) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = text(e)
	}
	return out
}

func addressTexts(ranges []netipx.IPRange, names *analysis.Names) (list []string, text string) {
	return texts(ranges, analysis.AddressRange), names.Text(ranges)
}

func boxOf(b *analysis.Box, names *analysis.Names) DiffBox {
	out := DiffBox{Protocol: b.Protocol, SourcePorts: texts(b.SourcePorts, analysis.PortRange),
		DestinationPorts: texts(b.DestinationPorts, analysis.PortRange), ICMPTypes: texts(b.ICMPTypes, analysis.PortRange)}
	out.Sources, out.SourceText = addressTexts(b.Sources, names)
	out.Destinations, out.DestinationText = addressTexts(b.Destinations, names)
	return out
}

// namesFor are the tags as they stand for a target's packets.
func (s *diffSide) namesFor(t *diffTarget) *analysis.Names {
	var subnet *policy.Subnet
	if t.endpoint != nil {
		subnet = t.endpoint.Subnet
	}
	names := s.names[subnet]
	if names == nil {
		names = TagNames(s.snapshot, subnet)
		s.names[subnet] = names
	}
	return names
}

func witnessOf(k *packet.Tuple) DiffWitness {
	w := DiffWitness{Protocol: packet.ProtocolName(k.Proto), Source: k.Src.String(), Destination: k.Dst.String()}
	switch k.Proto {
	case packet.ProtoTCP, packet.ProtoUDP:
		w.SourcePort, w.DestinationPort = &k.SrcPort, &k.DstPort
	case packet.ProtoICMP, packet.ProtoICMPv6:
		w.ICMPType = &k.DstPort
	}
	return w
}

// TagNames are the tags as they stand for the packets of a subnet.
func TagNames(s *topology.Snapshot, subnet *policy.Subnet) *analysis.Names {
	names := &analysis.Names{}
	add := func(tag string) {
		prefixes, _ := s.ExpandTag(subnet, tag)
		names.Add(tag, prefixes)
	}
	for _, tag := range []string{ruleset.TagInternet, ruleset.TagVirtualNetwork, ruleset.TagAzureLoadBalancer} {
		add(tag)
	}
	for _, tag := range slices.Sorted(maps.Keys(s.Policy.ServiceTags)) {
		add(tag)
	}
	return names
}

// NewBox is a set of packets, with the tags that names knows.
func NewBox(b *analysis.Box, names *analysis.Names) DiffBox { return boxOf(b, names) }

// Witness is a packet as classifier.Linear takes it.
func Witness(k *packet.Tuple) DiffWitness { return witnessOf(k) }

// ForEnd names an end.
func ForEnd(e *topology.Endpoint) (f DiffFor) {
	t := diffTarget{endpoint: e}
	if e.NetworkInterface != nil {
		t.name = e.NetworkInterface.Name
	} else {
		t.name = e.Subnet.VirtualNetwork.Name + "/" + e.Subnet.Name
	}
	return t.names()
}
