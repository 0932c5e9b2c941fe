package dataplane

import (
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
)

// attempt is a connection whose SYN has been sent.
func attempt(r *rig) *dialogue {
	c := &dialogue{r: r, from: internet, to: vm2, there: toVM2, back: back(toVM2), begins: 1000, answer: 77000}
	c.client("S", 1000, 0, 0)
	return c
}

// handshake ends an attempt well.
func (c *dialogue) handshake() {
	c.server("SA", 77000, 1001, 0)
	c.client("A", 1001, 77001, 0)
}

// Whoever knows no number sends an ACK for the server, and a RST with sequence number 0.
func TestHostile02BlindACKAndRSTRefuseNoAttempt(t *testing.T) {
	r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024, TCPStrict: true})
	c := attempt(r)
	c.server("A", 0xdeadbeef, 0x12345678, 0)
	rst := packettest.TCP(spec{Src: toVM2.Dst, Dst: toVM2.Src, SrcPort: toVM2.DstPort, DstPort: toVM2.SrcPort, Flags: "R", Seq: 5})
	copy(rst[24:], []byte{0, 0, 0, 0})
	r.pass(vm2, framed(rst))
	if c.handshake(); c.state() != "established" {
		t.Errorf("the connection is %s", c.state())
	}
}

// A SYN in a fragment says nothing of where its datagram ends, and opens nothing.
func TestHostile02AFragmentedSYNLeavesTheWindows(t *testing.T) {
	r := newRig(t, figure(append(inbound()[:1:1], anyRule("out", 100, ruleset.Outbound, ruleset.Allow)), nil), conntrack.Options{Max: 1024})
	c := attempt(r)
	f := c.back
	f.Flags, f.Seq, f.MoreFragments, f.Payload, f.ID = "S", 0xdeadbeef, true, 8, 99
	f.TCPOptions = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}}
	r.pass(vm2, framed(packettest.TCP(f)))
	c.handshake()
	if c.server("R", 0x12345678, 0, 0); c.state() != "established" {
		t.Errorf("the connection is %s", c.state())
	}
}

func TestHostile02ABlindSYNProlongsNoAttempt(t *testing.T) {
	r := newRig(t, figure(inbound(), inbound()), conntrack.Options{Max: 1024})
	c := attempt(r)
	for range 10 {
		r.clock += 29 * time.Second
		if at, _ := c.try(vm2, c.back, "S", 0xdeadbeef, 0, 0); at < 0 {
			return
		}
	}
	t.Errorf("the attempt is %s", c.state())
}

func TestARetransmittedSYNIsOfItsConnection(t *testing.T) {
	r := newRig(t, figure(inbound(), nil), conntrack.Options{Max: 1024})
	c := attempt(r)
	c.server("SA", 77000, 1001, 0) // lost on its way
	c.client("S", 1000, 0, 0)
	if c.handshake(); c.state() != "established" || r.engine.Flows().Stats().Created != 1 {
		t.Errorf("%s, %+v", c.state(), r.engine.Flows().Stats())
	}
}
