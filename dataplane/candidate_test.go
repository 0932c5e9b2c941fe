package dataplane

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// packetOf is the next packet of a flow in its original direction.
func packetOf(f *conntrack.FlowInfo, reply bool) []byte {
	t, flags := f.Key.Tuple, "A"
	if !f.Answered {
		flags = "S"
	}
	if reply {
		t, flags = f.ReplyKey.Tuple, "SA"
	}
	s := packettest.Spec{Src: t.Src.String(), Dst: t.Dst.String(), SrcPort: t.SrcPort, DstPort: t.DstPort, Flags: flags}
	switch t.Proto {
	case packet.ProtoTCP:
		return packettest.TCP(s)
	case packet.ProtoUDP:
		return packettest.UDP(s)
	}
	return nil
}

func flowsOf(e *Engine) (list []conntrack.FlowInfo) {
	e.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		if !f.Class.Cut() {
			list = append(list, *f)
		}
		return true
	})
	return list
}

// worldWithFlows is a random world with live flows, some answered, and a policy to reload.
func worldWithFlows(t *testing.T, seed uint64) (*rig, *policy.Set) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	choices := make([]byte, 600)
	for i := range choices {
		choices[i] = uint8(r.Uint32())
	}
	var policies [2]*policy.Set
	for i := range policies {
		c := packettest.Choices(slices.Clone(choices))
		policies[i] = enginetest.PolicyFrom(&c)
		for range 1 + r.IntN(60) {
			choices[r.IntN(200)] = uint8(r.Uint32())
		}
	}
	rig := newRigWith(t, policies[0], Options{Attachments: enginetest.Specs, Flows: conntrack.Options{Max: 1024}})
	rig.rewrites = true
	for range 60 {
		from, to, family := enginetest.Hosts[r.IntN(7)], enginetest.Hosts[r.IntN(7)], r.IntN(2)
		s := packettest.Spec{Src: from.Address(family), Dst: to.Address(family), SrcPort: uint16(1000 + r.IntN(9)), DstPort: []uint16{22, 80, 443}[r.IntN(3)], Flags: "S"}
		p := packettest.TCP(s)
		if r.IntN(2) == 0 {
			p = packettest.UDP(s)
		}
		rig.send(from.At, p)
	}
	for _, f := range flowsOf(rig.engine) {
		if r.IntN(2) == 0 {
			rig.send(int(f.ReplyKey.Zone), packetOf(&f, true))
		}
	}
	rig.clock += time.Second
	rig.engine.flows.Expire(rig.engine.Now(), 0)
	return rig, policies[1]
}

// What a candidate is said to end is what its reload and the next packet of each flow end, and nothing else.
func TestCutsAreWhatAReloadEnds(t *testing.T) {
	worlds, denied, ended, kept := 100, 0, 0, 0
	if testing.Short() {
		worlds = 10
	}
	for seed := range uint64(worlds) {
		rig, next := worldWithFlows(t, seed)
		before := flowsOf(rig.engine)
		running, keys := rig.engine.Snapshot(), len(rig.engine.Registry().Keys())
		candidate, err := rig.engine.Candidate(next)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		said := map[conntrack.Key]packet.Drop{}
		if live := verdict.Cuts(rig.engine.Flows(), rig.engine.Room(), running, candidate, func(f *conntrack.FlowInfo, d *verdict.Decision) { said[f.Key] = d.Drop }); live != len(before) {
			t.Fatalf("seed %d: %d flows live, not %d", seed, live, len(before))
		}
		if rig.engine.Snapshot() != running || len(rig.engine.Registry().Keys()) != keys || len(flowsOf(rig.engine)) != len(before) {
			t.Fatalf("seed %d: the question has changed the engine", seed)
		}

		swap(t, rig, next)
		for i := range before {
			f := &before[i]
			rig.send(int(f.Key.Zone), packetOf(f, false))
			drop, cut := said[f.Key]
			lives := slices.ContainsFunc(flowsOf(rig.engine), func(o conntrack.FlowInfo) bool { return o.Key == f.Key && o.Created == f.Created })
			if lives == cut {
				t.Fatalf("seed %d: flow %v answered %v lives %v, said to end %v (%v)", seed, f.Key, f.Answered, lives, cut, drop)
			}
			switch {
			case !cut:
				kept++
			case drop == packet.NotDropped:
				ended++
			default:
				denied++
			}
		}
	}
	if denied < worlds || ended < worlds/2 || kept < worlds {
		t.Errorf("the test is blind: %d denied, %d ended, %d kept", denied, ended, kept)
	}
}

// Each end of a flow that takes two ways has a record, and each is asked about by its own rules.
func TestCutsWhereAnswersGoAnotherWay(t *testing.T) {
	deny := func(d ruleset.Direction) []ruleset.Rule { return []ruleset.Rule{anyRule("d", 100, d, ruleset.Deny)} }
	flush := func(s *policy.Set) {
		for _, g := range s.NetworkSecurityGroups {
			g.FlushConnection = true
		}
	}
	left := byFW("10.2.0.0/24")
	allow := []ruleset.Rule{anyRule("in", 100, ruleset.Inbound, ruleset.Allow)}
	before := hubWorld{left: left, a: allow, b: allow, fw: allow, edit: flush}
	for _, tt := range []struct {
		name  string
		after hubWorld
		want  []string
	}{
		{"nothing changes", before, nil},
		{"the sender's end denies", hubWorld{left: left, a: deny(ruleset.Outbound), b: allow, fw: allow, edit: flush}, []string{"rule_deny whole"}},
		{"the appliance denies what comes in", hubWorld{left: left, a: allow, b: allow, fw: deny(ruleset.Inbound), edit: flush}, []string{"rule_deny whole"}},
		{"the receiver's end denies", hubWorld{left: left, a: allow, b: deny(ruleset.Inbound), fw: allow, edit: flush}, []string{"rule_deny far"}},
		{"a denial without flushConnection", hubWorld{left: left, a: allow, b: deny(ruleset.Inbound), fw: allow}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := hubRig(t, before)
			r.play([]step{{atA, ab("S"), atFW, ""}, {atFW, ab("S"), atB, ""}, {atB, ba("SA"), atA, ""}})
			candidate, err := r.engine.Candidate(tt.after.policy())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			verdict.Cuts(r.engine.Flows(), r.engine.Room(), r.engine.Snapshot(), candidate, func(f *conntrack.FlowInfo, d *verdict.Decision) {
				at := "whole"
				if _, whole := r.engine.Room().Attachment(f.Key.Zone); !whole {
					at = "far"
				}
				got = append(got, d.Drop.String()+" "+at)
			})
			if !slices.Equal(got, tt.want) {
				t.Errorf("ends %v, want %v", got, tt.want)
			}
		})
	}
}
