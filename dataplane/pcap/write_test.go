package pcap_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/pcap"
)

var (
	interfaces = []pcap.Interface{{Name: "vm1-nic", Description: "networkInterface vm1-nic on eth0"}, {Name: "vnet1/subnet3"}, {Name: "internet", Description: "internet"}}
	start      = time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.UTC)
)

// written is a packet and the interface that it came in on.
type written struct {
	on int
	pcap.Packet
}

func packets() []written {
	udp := packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1234, DstPort: 53, Payload: 5})
	tcp := packettest.TCP(packettest.Spec{Src: "fd00::4", Dst: "2001:db8::10", SrcPort: 1234, DstPort: 80, Flags: "S"})
	return []written{
		{0, pcap.Packet{Time: start, Data: udp, Length: len(udp), Comment: []byte("verdict=Deny nsg=NSG1 rule=securityRules/x reason=rule_deny")}},
		{2, pcap.Packet{Time: start.Add(time.Nanosecond), Data: tcp, Length: len(tcp), Comment: []byte("é")}},
		{1, pcap.Packet{Time: start.Add(time.Hour), Data: udp[:21], Length: len(udp)}},
		{1, pcap.Packet{Time: start.Add(2 * time.Hour), Data: nil, Length: len(udp), Comment: []byte("nothing was kept")}},
	}
}

func write(t *testing.T, list []written) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcap.NewWriter(&b, "nsgd test", 262_144, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		if err := w.Write(list[i].on, &list[i].Packet); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestGopacketReadsWhatWasWritten(t *testing.T) {
	list := packets()
	r, err := pcapgo.NewNgReader(bytes.NewReader(write(t, list)), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		want := &list[i]
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want.Data) || info.Length != want.Length || info.InterfaceIndex != want.on || !info.Timestamp.Equal(want.Time) {
			t.Errorf("packet %d: %d bytes, %+v", i, len(data), info)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last packet: %v", err)
	}
	for i, want := range interfaces {
		got, err := r.Interface(i)
		if err != nil || got.Name != want.Name || got.Description != want.Description || got.LinkType != layers.LinkTypeRaw || got.SnapLength != 262_144 {
			t.Errorf("interface %d: %+v, %v", i, got, err)
		}
	}
	if got := r.SectionInfo().Application; got != "nsgd test" {
		t.Errorf("application %q", got)
	}
}

func TestTsharkReadsWhatWasWritten(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Fatalf("%v: scripts/setup installs it", err)
	}
	file := filepath.Join(t.TempDir(), "x.pcapng")
	if err := os.WriteFile(file, write(t, packets()), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tshark", "-n", "-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.interface_description",
		"-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len", "-e", "frame.comment", "-e", "frame.protocols")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"vm1-nic\tnetworkInterface vm1-nic on eth0\t1767323045.123456789\t33\t33\tverdict=Deny nsg=NSG1 rule=securityRules/x reason=rule_deny\traw:ip:udp",
		"internet\tinternet\t1767323045.123456790\t60\t60\té\traw:ipv6:tcp",
		"vnet1/subnet3\t\t1767326645.123456789\t33\t21\t\traw:ip:",
		"vnet1/subnet3\t\t1767330245.123456789\t33\t0\tnothing was kept\t",
	}
	rows := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(rows) != len(want) {
		t.Fatalf("%d packets, want %d:\n%s", len(rows), len(want), out)
	}
	for i := range want {
		if !strings.HasPrefix(rows[i], want[i]) {
			t.Errorf("packet %d:\n%q, want\n%q", i, rows[i], want[i])
		}
	}
}

// TestEveryBlockHasItsLengthAtBothEnds walks the blocks as a reader that knows none of them.
func TestEveryBlockHasItsLengthAtBothEnds(t *testing.T) {
	file := write(t, packets())
	var types []uint32
	for len(file) > 0 {
		length := binary.LittleEndian.Uint32(file[4:])
		if length%4 != 0 || int(length) > len(file) || binary.LittleEndian.Uint32(file[length-4:]) != length {
			t.Fatalf("block %d of %d bytes", len(types), length)
		}
		types, file = append(types, binary.LittleEndian.Uint32(file)), file[length:]
	}
	if len(types) != 1+len(interfaces)+len(packets()) {
		t.Errorf("blocks %x", types)
	}
}

func TestWhatTheFormatHasNoPlaceForIsRefusedOrCut(t *testing.T) {
	w, err := pcap.NewWriter(io.Discard, "", 0, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []written{{on: 3}, {on: -1}, {0, pcap.Packet{Data: make([]byte, 2), Length: 1}}} {
		if w.Write(p.on, &p.Packet) == nil {
			t.Errorf("%+v was written", p)
		}
	}
	if _, err := pcap.NewWriter(io.Discard, "", 0, make([]pcap.Interface, 1<<16+1)); err == nil {
		t.Error("too many interfaces are taken")
	}
	long := packets()[:1]
	long[0].Comment = bytes.Repeat([]byte("x"), pcap.MaxComment+1)
	r, err := pcapgo.NewNgReader(bytes.NewReader(write(t, long)), pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.ReadPacketData(); err != nil {
		t.Error(err)
	}
	ours, err := pcap.NewReader(t.Context(), bytes.NewReader(write(t, long)))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	var p pcap.Packet
	if err := ours.Next(&p); err != nil || len(p.Comment) != pcap.MaxComment {
		t.Errorf("a comment of %d bytes, %v", len(p.Comment), err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAFullDiskIsAnError(t *testing.T) {
	if _, err := pcap.NewWriter(full{}, "", 0, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}
