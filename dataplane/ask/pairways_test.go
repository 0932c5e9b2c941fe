package ask

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Pairs of places that are alike are asked once. The answers are those that each pair gives when it is asked itself.
func TestPairsThatAreAlikeHaveTheAnswersOfEachPair(t *testing.T) {
	policies, alike, compared := worldsOf(20, 8), 0, 0
	for seed := range uint64(policies) {
		set := randomSets(seed)[0]
		added := addTwins(set)
		s, err := topology.Build(set, nil, topology.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		once, each := NewBetween(s, 0), NewBetween(s, 0)
		numbers := map[int]int{}
		for i := range each.classes {
			if n := each.classes[i].Alike; n > 0 {
				if numbers[n]++; numbers[n] > 1 {
					alike++
				}
			}
			each.classes[i].Alike = 0
		}
		got, err := once.Ask(Everybody(), Everybody(), nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := each.Ask(Everybody(), Everybody(), nil)
		if err != nil {
			t.Fatal(err)
		}
		answers := func(sets *PathSets, k *packet.Tuple) map[string]bool {
			found := map[string]bool{}
			for i := range sets.Sets {
				if p := &sets.Sets[i]; p.holds(k) {
					text := fmt.Sprint(p.Access, p.Reason, p.Chosen, len(p.Legs))
					for _, d := range p.Deciders {
						text += fmt.Sprint(d.DiffDecision)
					}
					found[text] = true
				}
			}
			return found
		}
		r := rand.New(rand.NewPCG(seed, 11))
		for range 300 {
			from, to := randomPlace(r), randomPlace(r)
			if len(added) > 0 && r.IntN(2) == 0 {
				from = added[r.IntN(len(added))]
			}
			if len(added) > 0 && r.IntN(2) == 0 {
				to = added[r.IntN(len(added))]
			}
			if from.Is4() != to.Is4() || from == to {
				continue
			}
			k := packetBetween(r, from, to)
			compared++
			if a, b := answers(got, &k), answers(want, &k); fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("seed %d: %v (ports %d, %d): asked once %v, each %v", seed, k, k.SrcPort, k.DstPort, a, b)
			}
		}
	}
	if alike < policies || compared < 100*policies {
		t.Errorf("%d classes are alike, %d packets compared: the test says little", alike, compared)
	}
}

// addTwins gives each subnet three more network interfaces that nothing names, one of them with a group of its own. It
// returns their addresses.
func addTwins(set *policy.Set) (added []netip.Addr) {
	for _, v := range set.VirtualNetworks {
		for _, sub := range v.Subnets {
			a := sub.Prefixes[0].Addr().Next().Next().Next()
			for n := range 3 {
				for a = a.Next(); slices.ContainsFunc(set.NetworkInterfaces, func(nic *policy.NetworkInterface) bool { return hasAddress(nic, a) }); {
					a = a.Next()
				}
				if !sub.Prefixes[0].Contains(a) {
					break
				}
				name := fmt.Sprint("twin-", v.Name, sub.Name, n)
				nic := &policy.NetworkInterface{Name: name, ID: "/" + name, IPConfigurations: []policy.IPConfiguration{{Name: "a", Address: a, Subnet: sub, Primary: true}}}
				if n == 2 && len(set.NetworkSecurityGroups) > 0 {
					nic.NetworkSecurityGroup = set.NetworkSecurityGroups[0]
				}
				set.NetworkInterfaces, added = append(set.NetworkInterfaces, nic), append(added, a)
			}
		}
	}
	return added
}

func hasAddress(nic *policy.NetworkInterface, a netip.Addr) bool {
	return slices.ContainsFunc(nic.IPConfigurations, func(c policy.IPConfiguration) bool { return c.Address == a })
}

func TestNoWitnessIsAPacketToItsOwnSender(t *testing.T) {
	b := NewBetween(policyOfSize(t, 2, 3, 0), 0)
	sets, err := b.Ask(Everybody(), Everybody(), nil)
	if err != nil || len(sets.Sets) == 0 {
		t.Fatal(err, len(sets.Sets))
	}
	for i := range sets.Sets {
		p := &sets.Sets[i]
		for j, w := range p.Witnesses {
			if w.Src == w.Dst && p.course.drop != packet.DropLand || !p.Boxes[j].Has(&w) {
				t.Errorf("%v to %v: witness %v of %v", p.From, p.To, w, p.Boxes[j])
			}
		}
	}
	if result, err := Reach(t.Context(), b.snapshot, &ReachParameters{From: "subnet:s0", To: "nic:nic0-1"}); err != nil || len(result.Allowed) != 1 {
		t.Errorf("%+v, %v: want one row, as what an address sends to itself is not in question", result, err)
	}
}

func TestPairsBehindTheBoundAreNotDecided(t *testing.T) {
	s := policyOfSize(t, 2, 3, 0)
	result, err := Reach(t.Context(), s, &ReachParameters{MaxPairs: 50})
	if err != nil || len(result.Undecided) == 0 || result.Undecided[0].Why != "there are more than 50 pairs of places: name an end" {
		t.Fatalf("%+v, %v", result, err)
	}
	if all, err := Reach(t.Context(), s, &ReachParameters{}); err != nil || len(all.Undecided) > 0 {
		t.Errorf("without the bound: %+v, %v", all, err)
	}
	// Pairs that are alike cost little, and not nothing.
	result, err = Reach(t.Context(), policyOfSize(t, 1, 190, 0), &ReachParameters{MaxPairs: 300})
	if err != nil || len(result.Undecided) == 0 || result.Undecided[0].Why != "there are more than 30000 pairs of places: name an end" {
		t.Errorf("alike: %+v, %v", result.Undecided, err)
	}
	// All judgements together have a bound too.
	result, err = Reach(t.Context(), policyOfSize(t, 30, 1, 0), &ReachParameters{MaxStates: 60})
	const large = "the rules of all ends cross each other too often: name an end"
	if err != nil || len(result.Allowed) == 0 || !slices.ContainsFunc(result.Undecided, func(u ReachUndecided) bool { return u.Why == large }) {
		t.Errorf("states: %d allowed, %+v, %v", len(result.Allowed), result.Undecided, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Reach(ctx, s, &ReachParameters{}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
