package fabric

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHostsReachEachOther(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 3, family.address, 1500)
			u.serve()
			for _, from := range u.hosts {
				for _, to := range u.hosts {
					if from == to {
						continue
					}
					for vni, network := range map[uint16]string{red: "red", blue: "blue"} { // with the same addresses
						from.arrives(to, network, udp(from.nic4(), to.nic4(), vni))
						from.arrives(to, network, udp(from.nic6(), to.nic6(), vni))
					}
				}
			}
			for _, h := range u.hosts {
				c, err := h.fabric.Counts()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(Counts{Tunnels: map[uint32]Count{red: {4, 4, map[string]uint64{}}, blue: {4, 4, map[string]uint64{}}}, Unknown: Count{Dropped: map[string]uint64{}}}, c); diff != "" {
					t.Errorf("counts of %s: %s", h.name(), diff)
				}
			}
		})
	}
}

func TestCloseLeavesWhatWasThere(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	h := u.hosts[0]
	h.device("red")
	h.device("blue")
	before := h.listing()
	h.open()
	for range 2 {
		u.must(h.fabric.Apply(h.state()))
	}
	if during := h.listing(); during == before {
		t.Error("Apply changed nothing")
	}
	u.must(h.fabric.Close())
	if diff := cmp.Diff(before, h.listing()); diff != "" {
		t.Errorf("after Close: %s", diff)
	}
}

func TestThousandsOfHosts(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	for _, h := range u.hosts {
		s := h.large(MaxHosts)
		s.Hosts[MaxHosts-1].Underlay = u.hosts[2-h.number].address
		h.device("red")
		h.open()
		u.must(h.fabric.Apply(s))
	}
	last := "10.1.19.136" // the 5,000th
	u.hosts[0].arrives(u.hosts[1], "red", udp(last, last, 1))
}

func TestAQdiscThatWasThereStays(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	h := u.hosts[0]
	h.device("red")
	h.device("blue")
	h.run("tc", "qdisc", "add", "dev", "red", "clsact")
	before := h.listing()
	h.open()
	u.must(h.fabric.Apply(h.state()))
	u.must(h.fabric.Close())
	if diff := cmp.Diff(before, h.listing()); diff != "" {
		t.Error(diff)
	}
}
