//go:build !nocluster

package main

import (
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun/fabric"
)

// joinedMember is a host that has a network interface; another one has the internet and the other network interfaces.
func joinedMember(numbers map[string]uint32) (*member, *Config, *[]fabric.State) {
	set := enginetest.FigureOfTheSeed()
	own := netip.MustParseAddr("192.168.99.1")
	p := &cluster.Placement{Self: "h1", NICs: map[string]cluster.PlacedNIC{}, Hosts: map[string]cluster.PlacedHost{
		"h1": {Underlay: own, Port: 4790, MTU: 1500}, "h2": {Underlay: netip.MustParseAddr("192.168.99.2"), Port: 4790, MTU: 1500, Internet: true},
	}}
	for i, nic := range set.NetworkInterfaces {
		p.NICs[cluster.NormalNIC(nic.ID)] = cluster.PlacedNIC{Host: map[bool]string{true: "h1", false: "h2"}[i == 0]}
	}
	var applied []fabric.State
	m := &member{joint: joint{placement: p, numbers: numbers, port: 4790, apply: func(s fabric.State) error { applied = append(applied, s); return nil }}}
	c := &Config{Cluster: &ClusterConfig{Underlay: Address{own}, Port: 4790}, Attachments: []AttachmentConfig{{NetworkInterface: set.NetworkInterfaces[0].ID}}}
	return m, c, &applied
}

// names are what the fabrics of joinedMember are numbered by.
func fabricNames(t *testing.T) []string {
	t.Helper()
	m, c, _ := joinedMember(nil)
	m.joint.join(c, enginetest.FigureOfTheSeed(), false)
	if len(m.lacking) != 2 || len(c.Attachments) != 1 {
		t.Fatalf("lacking %q, attached %d", m.lacking, len(c.Attachments))
	}
	return m.lacking
}

// What was written to a device that the kernel's part did not know reached the host itself, until the change was settled.
func TestNewDevicesAreKnownBeforePacketsAreWrittenToThem(t *testing.T) {
	names, set := fabricNames(t), enginetest.FigureOfTheSeed()
	m, c, applied := joinedMember(map[string]uint32{names[0]: 7, names[1]: 8})
	next := *c
	m.joint.join(&next, set, false)
	if _, err := m.close(&next, set, nil); err != nil || len(*applied) != 1 || len((*applied)[0].Tunnels) != 2 {
		t.Fatalf("%v, applied %+v", err, *applied)
	}
	if err := m.settle(&next, set); err != nil {
		t.Fatal(err)
	}
	if _, err := m.close(&next, set, nil); err != nil || len(*applied) != 1 {
		t.Errorf("%v, applied %d times: nothing is new", err, len(*applied))
	}
	// Somebody has removed a device, and a reload has opened another one of its name.
	device := next.Attachments[len(next.Attachments)-1].Device
	if _, err := m.close(&next, set, map[string]bool{device: true}); err != nil || len(*applied) != 2 {
		t.Errorf("%v, applied %d times: the kernel does not know the new device", err, len(*applied))
	}
}

// A rule change tells the kernel nothing. What failed, and what somebody may have removed, it is told again.
func TestTheKernelIsToldWhatIsNew(t *testing.T) {
	names, set := fabricNames(t), enginetest.FigureOfTheSeed()
	m, c, applied := joinedMember(map[string]uint32{names[0]: 7, names[1]: 8})
	works := m.apply
	next := *c
	m.joint.join(&next, set, false)
	m.apply = func(s fabric.State) error { works(s); return errors.New("no memory") }
	if err := m.settle(&next, set); err == nil {
		t.Fatal("no error")
	}
	m.apply = works
	told := func(want int, what string, do func() error) {
		t.Helper()
		before := len(*applied)
		if err := do(); err != nil || len(*applied)-before != want {
			t.Errorf("%s: %v, told %d times, want %d", what, err, len(*applied)-before, want)
		}
	}
	told(1, "after an error", func() error { return m.settle(&next, set) })
	told(0, "another policy", func() error { return m.settle(&next, enginetest.FigureOfTheSeed()) })
	told(0, "the same placement", func() error { _, err := m.retune(); return err })
	told(1, "mend", m.reapply)
	other := maps.Clone(m.placement.NICs)
	delete(other, cluster.NormalNIC(set.NetworkInterfaces[1].ID))
	m.placement = &cluster.Placement{Self: "h1", NICs: other, Hosts: m.placement.Hosts}
	told(1, "another placement", func() error { _, err := m.retune(); return err })
}

// A plan is made once for a policy, attachments and a placement.
func TestAPlanIsMadeAnewForWhatIsNew(t *testing.T) {
	m, c, _ := joinedMember(nil)
	set, own := enginetest.FigureOfTheSeed(), c.specs()
	first := m.plan(set, own)
	if m.plan(set, c.specs()) != first {
		t.Error("made twice")
	}
	if none := m.plan(set, nil); len(none.Specs) != 0 {
		t.Errorf("%v without attachments", none.Specs)
	}
	if m.plan(set, own); m.plan(enginetest.FigureOfTheSeed(), own) == m.plan(set, own) {
		t.Error("that of another policy")
	}
	p := *m.placement
	p.Hosts = map[string]cluster.PlacedHost{"h1": p.Hosts["h1"]}
	m.placement = &p
	if alone := m.plan(set, own); len(alone.Specs) != 1 {
		t.Errorf("%v without other hosts", alone.Specs)
	}
}

// A number that two networks have leads to one of them. A device stays that of its network, whatever its number is.
func TestANumberThatTwoNetworksHave(t *testing.T) {
	names, set := fabricNames(t), enginetest.FigureOfTheSeed()
	m, c, _ := joinedMember(map[string]uint32{names[0]: 7, names[1]: 7})
	next := *c
	m.joint.join(&next, set, false)
	if len(next.Attachments) != 2 || len(m.doubled) != 1 || m.doubled[0] != names[1] {
		t.Errorf("%d attachments, doubled %q", len(next.Attachments), m.doubled)
	}
	was := next.Attachments[1].Device
	m.numbers = map[string]uint32{names[0]: 8, names[1]: 7}
	swapped := m.rejoined(&next, set)
	if a := swapped.Attachments[1]; a.Device != was || a.fabric.Sort != topology.FabricGroup || swapped.Attachments[2].Device == was {
		t.Errorf("%+v was %s", swapped.Attachments, was)
	}
}

// A placement that came between the reading of a configuration and its end is not lost.
func TestSettlingTakesTheNewestPlacement(t *testing.T) {
	names, set := fabricNames(t), enginetest.FigureOfTheSeed()
	m, c, applied := joinedMember(map[string]uint32{names[0]: 7, names[1]: 8})
	next := *c
	m.joint.join(&next, set, false)
	newer := *m.placement
	newer.Hosts = map[string]cluster.PlacedHost{"h1": m.placement.Hosts["h1"], "h2": m.placement.Hosts["h2"], "h3": {Underlay: netip.MustParseAddr("192.168.99.3"), Port: 4790, MTU: 1500}}
	m.placement = &newer
	if err := m.settle(&next, set); err != nil || len((*applied)[0].Hosts) != 2 {
		t.Errorf("%v, applied %+v", err, *applied)
	}
}

// A try asks with all that leads to other hosts, also with what has no number yet: a policy that could not be joined
// became current.
func TestATryAsksWithWhatLeadsToOtherHosts(t *testing.T) {
	m, c, _ := joinedMember(nil)
	set := enginetest.FigureOfTheSeed()
	for _, all := range []bool{true, false} {
		has := c.having(&share{all: all, join: m.joins()}, set)
		if got, want := len(has.Attachments), map[bool]int{true: 3, false: 0}[all]; got != want {
			t.Errorf("all %v: %d attachments, want %d", all, got, want)
		}
	}
}
