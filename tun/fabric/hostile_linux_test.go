package fabric

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// eventually waits for what a text has to become.
func (h *host) eventually(what, want string, is func() string) {
	h.Helper()
	for end := time.Now().Add(patience); is() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("%s: got %s, want %s", what, is(), want)
		}
	}
}

func TestAHostSendsOnlyWhatItHas(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 4, family.address, 1500)
			h1, h2, h3, stranger := u.hosts[0], u.hosts[1], u.hosts[2], u.hosts[3]
			u.hosts = u.hosts[:3]
			u.serve()
			to4, to6 := h2.nic4(), h2.nic6()
			for _, test := range []struct {
				name   string
				vni    uint32
				packet []byte
				of     uint32 // the tunnel that counts
				want   string
			}{
				{"another host's NIC", red, udp(h1.nic4(), to4, 9), red, "map[forged_source:1]"},
				{"another host's NIC, IPv6", red, udp(h1.nic6(), to6, 9), red, "map[forged_source:2]"},
				{"the receiver's own NIC", red, udp(h2.nic4(), to4, 9), red, "map[forged_source:2 own_source:1]"},
				{"nobody's address", red, udp("10.0.9.9", to4, 9), red, "map[forged_source:2 own_source:1 unknown_source:1]"},
				{"IPv4's address in IPv6", red, udp("::ffff:"+h3.nic4(), to6, 9), red, "map[forged_source:2 own_source:1 unknown_source:2]"},
				{"a group", red, udp(h3.nic4(), "224.0.0.1", 9), red, "map[forged_source:2 group:1 own_source:1 unknown_source:2]"},
				{"everybody", red, udp(h3.nic4(), "255.255.255.255", 9), red, "map[forged_source:2 group:2 own_source:1 unknown_source:2]"},
				{"a group of IPv6", red, udp(h3.nic6(), "ff02::1", 9), red, "map[forged_source:2 group:3 own_source:1 unknown_source:2]"},
				{"a header that is too short", blue, append([]byte{0x44}, udp(h3.nic4(), to4, 9)[1:]...), blue, "map[malformed:1]"},
				{"no IP", blue, make([]byte, 40), blue, "map[malformed:2]"},
				{"a network that is not there", 300, udp(h3.nic4(), to4, 9), 0, "map[unknown_vni:1]"},
				{"network 0", 0, udp(h3.nic4(), to4, 9), 0, "map[unknown_vni:2]"},
			} {
				h3.outer(h2.address, test.vni, test.packet)
				h2.eventually(test.name, test.want, func() string { return h2.dropped(test.of) })
			}
			before := h2.dropped(red)
			stranger.outer(h2.address, red, udp(h3.nic4(), to4, 9))
			h2.eventually("a stranger", "1 0", h2.table)
			h3.arrives(h2, "red", udp(h3.nic4(), to4, 1)) // and nothing before
			h3.arrives(h2, "blue", udp(h3.nic4(), to4, 1))
			if got := h2.dropped(red); got != before {
				t.Errorf("the stranger's packet came as far as the programs: got %s, before %s", got, before)
			}
		})
	}
}

// table are the counters of nft's table.
func (h *host) table() string {
	h.Helper()
	c, err := h.fabric.Counts()
	h.must(err)
	return fmt.Sprint(c.Strangers, " ", c.Past)
}

func TestWhatHasNoWayIsDropped(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	for _, test := range []struct {
		name   string
		packet []byte
		want   string
	}{
		{"nobody's address", udp(from.nic4(), "10.0.9.9", 9), "map[no_route:1]"},
		{"the host's own NIC", udp(from.nic4(), from.nic4(), 9), "map[no_route:2]"},
		{"nobody's address of IPv6", udp(from.nic6(), "fd00::9", 9), "map[no_route:3]"},
		{"a group", udp(from.nic4(), "224.0.0.1", 9), "map[group:1 no_route:3]"},
		{"a part of a header", udp(from.nic4(), to.nic4(), 9)[:19], "map[group:1 malformed:1 no_route:3]"},
	} {
		from.send("red", test.packet)
		from.eventually(test.name, test.want, func() string { return from.dropped(red) })
	}
	from.arrives(to, "red", udp(from.nic4(), to.nic4(), 1))
}

// Somebody removes the filters: a host that forwards and has the addresses itself gets nothing.
func TestNothingReachesTheHostPastThePrograms(t *testing.T) {
	u := newUnderlay(t, 2, families[0].address, 1500)
	u.serve()
	from, to := u.hosts[0], u.hosts[1]
	to.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	to.run("ip", "address", "add", to.nic4()+"/32", "dev", "lo")
	before := to.received()
	to.run("tc", "qdisc", "del", "dev", "vx", "clsact")
	from.send("red", udp(from.nic4(), to.nic4(), 9))
	to.eventually("from the fabric", "0 1", to.table)
	to.run("tc", "qdisc", "del", "dev", "red", "clsact")
	to.send("red", udp(from.nic4(), to.nic4(), 9))
	to.eventually("from nsgd", "0 2", to.table)
	if got := to.received(); got != before {
		t.Errorf("the host took a packet: %s, before %s", got, before)
	}
	u.must(to.fabric.Apply(to.state())) // which puts the filters back
	from.arrives(to, "red", udp(from.nic4(), to.nic4(), 1))
	to.arrives(from, "red", udp(to.nic4(), from.nic4(), 1))
}

// received is how many datagrams the host itself has refused, because no socket was for them.
func (h *host) received() string {
	return strings.Fields(h.run("sh", "-c", "grep ^Udp: /proc/net/snmp | tail -1"))[2]
}

func TestATableThatSomebodyRemovedComesBack(t *testing.T) {
	u := newUnderlay(t, 3, families[0].address, 1500)
	h1, h2, stranger := u.hosts[0], u.hosts[1], u.hosts[2]
	u.hosts = u.hosts[:2]
	u.serve()
	for _, harm := range []string{
		"nft flush ruleset",
		"nft add rule inet nsgd_fabric underlay accept",
		"nft flush set inet nsgd_fabric ours",
		"nft add element inet nsgd_fabric hosts { 192.168.99.3 }",
	} {
		h2.run("sh", "-c", harm)
		h1.arrives(h2, "red", udp(h1.nic4(), h2.nic4(), 1)) // the programs go on
		u.must(h2.fabric.Apply(h2.state()))
		stranger.outer(h2.address, red, udp(h1.nic4(), h2.nic4(), 9))
		h2.eventually(harm, "1 0", h2.table)
	}
}

func TestWhatSomebodyElseMadeStays(t *testing.T) {
	u := newUnderlay(t, 1, families[0].address, 1500)
	h := u.hosts[0]
	h.device("red")
	h.device("blue")
	for _, test := range []struct{ name, make, want string }{
		{"a device", "ip link add vx type bridge", `device "vx" is there, and nsgd has not made it`},
		{"a device of VXLAN", "ip link add vx type vxlan external gpe dstport 5555", `device "vx" is there, and nsgd has not made it`},
		{"a table", "nft add table inet nsgd_fabric", "table inet nsgd_fabric of nft is somebody else's"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.run("sh", "-c", test.make)
			before := h.listing()
			h.open()
			err := h.fabric.Apply(h.state())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s", err, test.want)
			}
			if _, err := Remove(h.namespace); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, h.listing()); diff != "" {
				t.Error(diff)
			}
			h.run("sh", "-c", "ip link del vx 2>/dev/null; nft flush ruleset")
		})
	}
}

// Hosts often have rules that look at connections.
func TestTheHostsTableOfConnectionsStaysEmpty(t *testing.T) {
	for _, family := range families {
		t.Run(family.name, func(t *testing.T) {
			u := newUnderlay(t, 2, family.address, 1500)
			for _, h := range u.hosts {
				h.run("nft", "table inet other { chain c { type filter hook input priority 0; ct state invalid drop; }; chain d { type filter hook output priority 0; ct state invalid drop; }; }")
			}
			u.serve()
			from, to := u.hosts[0], u.hosts[1]
			tracked := func(h *host) string {
				return strings.TrimSpace(h.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count"))
			}
			before := [2]string{tracked(from), tracked(to)}
			for source := range uint16(50) { // each has a port of its own outside
				packet := packettest.UDP(packettest.Spec{Src: from.nic4(), Dst: to.nic4(), SrcPort: 1000 + source, DstPort: 1, Payload: 32})
				from.arrives(to, "red", packet)
			}
			if after := [2]string{tracked(from), tracked(to)}; after != before {
				t.Errorf("tracked: %v, before %v", after, before)
			}
		})
	}
}
