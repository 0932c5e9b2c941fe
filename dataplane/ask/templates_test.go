package ask

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/classifier"
	"github.com/nsgd/nsgd/ruleset/policy"
)

var sampledPackets = flag.Int("samples", 500, "packets for each pair of policies that is sampled")

// edit changes a few user rules of a policy, as people do: the opposite access, other ports, any source, or gone. It is false
// where there are no rules.
func edit(r *rand.Rand, set *policy.Set) bool {
	var groups []*ruleset.NSG
	for _, g := range set.NetworkSecurityGroups {
		if len(g.Rules) > 0 {
			groups = append(groups, g)
		}
	}
	for range min(3, len(groups)) {
		g := groups[r.IntN(len(groups))]
		if len(g.Rules) == 0 {
			continue
		}
		i := r.IntN(len(g.Rules))
		switch rule := &g.Rules[i]; r.IntN(4) {
		case 0:
			rule.Access = 1 - rule.Access
		case 1:
			rule.DestinationPorts = []ruleset.PortRange{{First: 443, Last: 450}}
		case 2:
			rule.Source = ruleset.Peer{Any: true}
		case 3:
			g.Rules = append(g.Rules[:i:i], g.Rules[i+1:]...)
		}
	}
	return len(groups) > 0
}

// nearRule is a packet of an endpoint that a random rule of its stages matches, or nearly so.
func nearRule(r *rand.Rand, e *topology.Endpoint, d ruleset.Direction) packet.Tuple {
	k := randomTuple(r, e, d)
	stages := e.Inbound
	if d == ruleset.Outbound {
		stages = e.Outbound
	}
	var rules []classifier.Rule
	for i := range stages {
		rules = append(rules, stages[i].Table.Resolved()...)
	}
	if len(rules) == 0 {
		return k
	}
	rule := &rules[r.IntN(len(rules))]
	peer, to := rule.Sources, &k.Src
	if d == ruleset.Outbound {
		peer, to = rule.Destinations, &k.Dst
	}
	if len(peer) > 0 {
		if a := insideOf(r, peer[r.IntN(len(peer))]); a.Is6() == e.Address().Is6() {
			*to = packet.AddrFrom(a)
		}
	}
	if r.IntN(2) == 0 {
		k.Proto, k.SrcPort = packet.ProtoTCP, uint16(r.IntN(1<<16))
	}
	if ports := rule.DestinationPorts; len(ports) > 0 && (k.Proto == packet.ProtoTCP || k.Proto == packet.ProtoUDP) {
		one := ports[r.IntN(len(ports))]
		k.DstPort = one.First + uint16(r.IntN(int(one.Last)-int(one.First)+1))
	}
	return k
}

func insideOf(r *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= uint8(r.IntN(2)) << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Public templates, before and after edits: every sampled packet that differs is in one box, and no other is.
func TestDiffOfEditedTemplatesAgreesWithSampledPackets(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/templates/*/azuredeploy.json")
	if len(files) == 0 {
		t.Skip("the shared templates are not here")
	}
	pairs, differing, n := 0, 0, *sampledPackets
	if testing.Short() {
		n = min(n, 100)
	}
	for seed, file := range files {
		r := rand.New(rand.NewPCG(uint64(seed), 6))
		sets := [2]*policy.Set{arm.Load(file).Set, arm.Load(file).Set}
		if !edit(r, sets[1]) {
			continue
		}
		old, oldErr := topology.Build(sets[0], nil, topology.NewRegistry())
		new, newErr := topology.Build(sets[1], nil, topology.NewRegistry())
		if oldErr != nil || newErr != nil {
			continue // what is open makes some templates unfit as policies
		}
		result := Diff(old, new, DiffOptions{})
		if len(result.Undecided) > 0 {
			t.Fatalf("%s: not decided: %+v", file, result.Undecided)
		}
		var ends []*topology.Endpoint
		for _, e := range new.Endpoints() {
			if e.NetworkInterface != nil && endpointLike(old, e) != nil {
				ends = append(ends, e)
			}
		}
		if len(ends) == 0 {
			continue
		}
		pairs++
		for range n {
			e, d := ends[r.IntN(len(ends))], []ruleset.Direction{ruleset.Inbound, ruleset.Outbound}[r.IntN(2)]
			k := nearRule(r, e, d)
			was, is := judged(old, endpointLike(old, e), d, k), judged(new, e, d, k)
			if was.Access != is.Access {
				differing++
			}
			holdDiff(t, result, e, d, &k, was, is)
		}
		if t.Failed() {
			t.Fatal(file)
		}
	}
	t.Logf("%d pairs, %d packets each, %d packets differ", pairs, n, differing)
	if pairs < 10 || differing < pairs {
		t.Error("the test says little")
	}
}
