package replay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/tun"
)

func TestACommentTellsTheVerdict(t *testing.T) {
	for _, tt := range []struct {
		comment string
		want    Recorded
	}{
		{"", Recorded{}},
		{"somebody's note", Recorded{}},
		{"verdict=Deny nsg=NSG1 rule=defaultSecurityRules/DenyAllInBound reason=rule_deny flow=none by=NSG2/a,NSG1/b",
			Recorded{Verdict: Deny, NetworkSecurityGroup: "NSG1", Rule: "defaultSecurityRules/DenyAllInBound", Reason: "rule_deny"}},
		{`verdict=Allow nsg="a group" rule="unfinished`, Recorded{Verdict: Allow, NetworkSecurityGroup: "a group", Rule: `"unfinished`}},
		{`verdict=Deny to="a, verdict=Allow\nverdict=Allow"`, Recorded{Verdict: Deny}},
		{"seen = verdict=Allow", Recorded{Verdict: Allow}},
		{"=", Recorded{}},
	} {
		if diff := cmp.Diff(tt.want, recordedOf([]byte(tt.comment)), cmpopts.IgnoreUnexported(Recorded{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.comment, diff)
		}
	}
}

// A superpacket counts as what it was: the packets on a wire, each with its headers.
func TestASuperpacketCountsItsSegments(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	r := &Replay{}
	var d packet.Decoder
	for range 2000 {
		size := uint16(1 + random.IntN(1460))
		ip := tcp(world, addr1, 4000, 80, "A", 1+random.IntN(20_000))
		var want, got packet.Packet
		d.Decode(ip, size, &want)
		frame, whole := r.frameWith(ip, len(ip))
		if !whole {
			t.Fatal("not whole")
		}
		r.segment(frame, fmt.Appendf(nil, "verdict=Allow segments=%d", want.Segments))
		var h tun.Header
		h.Decode((*[tun.HeaderLen]byte)(frame))
		d.Decode(frame[tun.HeaderLen:], h.GSOSize, &got)
		if got != want {
			t.Fatalf("size %d: got %+v, want %+v", size, got, want)
		}
	}
}

func FuzzRecordedOf(f *testing.F) {
	f.Add("verdict=Deny reason=rule_deny rule=\"a b\"")
	f.Fuzz(func(t *testing.T, comment string) {
		recordedOf([]byte(comment)) // must end
	})
}

func FuzzPacket(f *testing.F) {
	set := labPolicy(f)
	r, err := New(Options{Policy: set, NetworkInterfaces: nics(f, set, "vm1-nic"), Top: 3, Compare: true, Each: func(*Packet) error { return nil }})
	if err != nil {
		f.Fatal(err)
	}
	r.seen.files = []File{{}}
	r.file = &r.seen.files[0]
	f.Add(syn(world, addr1, 1, 80), 40, "segments=3")
	f.Add(tcp(addr1, world, 1, 80, "A", 100)[:50], 140, "verdict=Deny")
	f.Fuzz(func(t *testing.T, ip []byte, length int, comment string) {
		p := &pcap.Packet{Link: pcap.Raw, Data: bytes.Clone(ip), Length: max(length, len(ip)), Comment: []byte(comment), Time: noon}
		if err := r.packet(p); err != nil {
			t.Fatal(err)
		}
	})
}

// A device that did not take a packet says nothing of the rules that let it pass.
func TestAPacketThatADeviceDidNotTakeDoesNotDiffer(t *testing.T) {
	set := labPolicy(t)
	for _, tt := range []struct {
		comment string
		port    uint16
		differs bool
	}{
		{"verdict=Allow", 80, false}, {"verdict=Deny reason=slow_receiver", 80, false}, {"verdict=Deny reason=transmit", 80, false},
		{"verdict=Deny reason=rule_deny", 80, true}, {"verdict=Deny reason=slow_receiver", 81, true},
	} {
		differs := false
		r, err := New(Options{Policy: set, NetworkInterfaces: nics(t, set, "vm1-nic"), Top: 3, Compare: true,
			Each: func(p *Packet) error { differs = p.Differs; return nil }})
		if err != nil {
			t.Fatal(err)
		}
		r.seen.files = []File{{}}
		r.file = &r.seen.files[0]
		ip := syn(world, addr1, 1, tt.port)
		if err := r.packet(&pcap.Packet{Link: pcap.Raw, Data: ip, Length: len(ip), Comment: []byte(tt.comment), Time: noon}); err != nil {
			t.Fatal(err)
		}
		if differs != tt.differs {
			t.Errorf("port %d, %s: differs %t", tt.port, tt.comment, differs)
		}
	}
}

// Each word's value was once looked for in a copy of the rest, which is a second for each packet with a
// comment as long as may be.
func TestALongCommentIsReadInOnePass(t *testing.T) {
	comment := []byte(strings.Repeat("a=b ", 16_000) + "verdict=Deny")
	allocated := testing.AllocsPerRun(1, func() {
		if recordedOf(comment).Verdict != Deny {
			t.Error("no verdict")
		}
	})
	if allocated > 100 {
		t.Errorf("%v allocations", allocated)
	}
}
