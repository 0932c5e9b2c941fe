package dhcp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/ruleset/policy"
	"golang.org/x/net/bpf"
)

const patience10 = 10 * time.Second

// start runs a responder whose openings are taken from a channel, and ends it with the test.
func start(t *testing.T, r *Responder, conns <-chan *fakeConn) {
	t.Helper()
	r.now = func() time.Time { return noon }
	r.open = func(Options) (conn, int, error) {
		if c := <-conns; c != nil {
			return c, 1500, nil
		}
		return nil, 0, errors.New("no such interface")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience10):
			t.Error("it does not end")
		}
	})
}

func (c *fakeConn) give(t *testing.T, frame []byte) {
	t.Helper()
	select {
	case c.in <- frame:
	case <-time.After(patience10):
		t.Fatal("nobody reads")
	}
}

func (c *fakeConn) take(t *testing.T) []byte {
	t.Helper()
	select {
	case frame := <-c.out:
		return frame
	case <-time.After(patience10):
		t.Fatal("no answer")
		return nil
	}
}

func isAdvertisement(frame []byte) bool {
	return len(frame) > 54 && frame[12] == 0x86 && frame[54] == 134
}

func TestAnInterfaceThatComesBackIsAnsweredAgain(t *testing.T) {
	nic, log := nicOf("172.16.3.4", "fd00:db8:1::4"), &logringtest.Buffer{}
	r := New(Options{Gateway: true, NetworkInterface: func() *policy.NetworkInterface { return nic }, Log: slog.New(slog.NewTextHandler(log, nil))})
	r.reopen = time.Millisecond
	conns, first, second := make(chan *fakeConn, 4), newFakeConn(), newFakeConn()
	conns <- nil
	conns <- nil
	conns <- first
	conns <- second
	start(t, r, conns)
	for _, c := range []*fakeConn{first, second} {
		if !isAdvertisement(c.take(t)) {
			t.Error("the router doesn't say that it is there")
		}
		c.give(t, whoHas(t, "172.16.3.1", "172.16.3.4", nil))
		if frame := c.take(t); frame[13] != 6 {
			t.Errorf("% x", frame)
		}
		if c == first {
			c.give(t, nil)
		}
	}
	select {
	case <-first.closed:
	default:
		t.Error("the first one stays open")
	}
	if missing, down, again := log.Count("no such interface"), log.Count("unknown network down"), log.Count("answers again"); missing != 1 || down != 1 || again != 2 {
		t.Errorf("%d, %d and %d lines, want 1, 1 and 2", missing, down, again)
	}
}

func TestAnInterfaceThatMayComeLaterIsNoWarningUntilThen(t *testing.T) {
	for wait, want := range map[bool]string{true: "level=INFO", false: "level=WARN"} {
		log := &logringtest.Buffer{}
		r := New(Options{Open: func() (int, int, error) { return Open("", "nsgd-none", false) }, Interface: "nsgd-none", Wait: wait, Log: slog.New(slog.NewTextHandler(log, nil))})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); r.Run(ctx) }()
		for end := time.Now().Add(patience10); log.Count("DHCP can't answer") == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		stop()
		<-ended
		if log.Count(want) != 1 || log.Count("level=") != 1 {
			t.Errorf("wait %v: not one line of %s", wait, want)
		}
	}
}

func TestAnInterfacesShareIsBounded(t *testing.T) {
	r := responderFor(nicOf("172.16.3.4"))
	now := noon
	frame := whoHas(t, "172.16.3.1", "172.16.3.4", nil)
	r.limit.SetBurstAt(now, 3)
	r.limit.SetLimitAt(now, 0) // what is there is all
	for r.limit.AllowN(now, 1) {
	}
	if out := r.reply(frame, 1500); out != nil {
		t.Error("answered beyond its share")
	}
	if s := r.Stats(); s != (Stats{Limited: 1}) {
		t.Errorf("%+v", s)
	}
	fresh := responderFor(nicOf("172.16.3.4"))
	for range 10 {
		fresh.reply(frame, 1500)
	}
	fresh.reply([]byte{1, 2}, 1500)
	if s := fresh.Stats(); s != (Stats{Answered: 10, Ignored: 1}) {
		t.Errorf("%+v", s)
	}
	if fresh.limit.Limit() != perSecond || fresh.limit.Burst() != burst {
		t.Errorf("%v a second, %d at once", fresh.limit.Limit(), fresh.limit.Burst())
	}
}

// A decoder that panics would take the whole dataplane along.
func TestAPanicCostsOneFrame(t *testing.T) {
	log, calm := &logringtest.Buffer{}, false
	r := New(Options{Gateway: true, Log: slog.New(slog.NewTextHandler(log, nil)), NetworkInterface: func() *policy.NetworkInterface {
		if !calm {
			panic("malformed")
		}
		return nicOf("172.16.3.4")
	}})
	frame := whoHas(t, "172.16.3.1", "172.16.3.4", nil)
	if out := r.reply(frame, 1500); out != nil || log.Count("malformed") != 1 {
		t.Errorf("% x; %s", out, log.String())
	}
	calm = true
	if out := r.reply(frame, 1500); out == nil || r.Stats() != (Stats{Answered: 1, Ignored: 1}) {
		t.Errorf("%+v", r.Stats())
	}
}

// udp4 is a UDP datagram over IPv4 of the client.
func udp4(t testing.TB, port layers.UDPPort, options int, fragment uint16) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast, FragOffset: fragment}
	for range options {
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 1})
	}
	return frameOf(t, clientMAC, broadcastMAC, layers.EthernetTypeIPv4, ip, &layers.UDP{SrcPort: 68, DstPort: port})
}

// icmp6Of is an ICMPv6 message of a type.
func icmp6Of(t testing.TB, kind uint8) []byte {
	frame := solicitation(t, "fe80::1", "ff02::1", "", 255)
	frame[54] = kind
	return frame
}

// The kernel runs the same filter; its look at direction and VLAN tag needs a real interface.
func TestTheFilterPassesQuestionsAlone(t *testing.T) {
	udp6 := func(port byte) []byte {
		frame := frame6Of(t, nil, "fe80::1", "ff02::1:2")
		frame[57] = port
		return frame
	}
	tests := []struct {
		name           string
		frame          []byte
		alone, gateway bool
	}{
		{"DHCPv4", udp4(t, 67, 0, 0), true, true},
		{"DHCPv4 behind IP options", udp4(t, 67, 8, 0), true, true},
		{"another port", udp4(t, 53, 0, 0), false, false},
		{"another port behind IP options", udp4(t, 53, 8, 0), false, false},
		{"a later fragment", udp4(t, 67, 0, 8), false, false},
		{"DHCPv6", frame6Of(t, nil, "fe80::1", "ff02::1:2"), true, true},
		{"another port of IPv6", udp6(53), false, false},
		{"ARP", whoHas(t, "172.16.3.1", "172.16.3.4", nil), false, true},
		{"a router solicitation", icmp6Of(t, 133), false, true},
		{"a neighbour solicitation", icmp6Of(t, 135), false, true},
		{"a router advertisement", icmp6Of(t, 134), false, false},
		{"an echo request", icmp6Of(t, 128), false, false},
		{"another protocol", frameOf(t, clientMAC, broadcastMAC, 0x88cc), false, false},
		{"nearly nothing", []byte{1, 2, 3}, false, false},
	}
	for _, gateway := range []bool{false, true} {
		vm, err := bpf.NewVM(questions(gateway))
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			n, err := vm.Run(tt.frame)
			if want := map[bool]bool{false: tt.alone, true: tt.gateway}[gateway]; err != nil || (n > 0) != want {
				t.Errorf("%s, gateway %t: %d, %v", tt.name, gateway, n, err)
			}
		}
		if _, err := bpf.Assemble(append(received(), questions(gateway)...)); err != nil {
			t.Error(err)
		}
	}
}

func TestAnInterfaceThatIsNotThere(t *testing.T) {
	if conn, _, err := openInterface(Options{Open: func() (int, int, error) { return Open("", "nsgd-nowhere", false) }}); err == nil || conn != nil {
		t.Errorf("%v, %v", conn, err)
	}
	if _, _, err := Open("nsgd-nowhere", "lo", false); err == nil {
		t.Error("a namespace that is not there")
	}
}

// FuzzAnswer holds every frame to one answer at most: to the one that asked, or to all on the link; from the gateway; of
// bounded size; and well formed.
func FuzzAnswer(f *testing.F) {
	offer := message4(3, requested("172.16.3.4"), chosen("168.63.129.16"), dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte{1, 2, 3}))
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	f.Add(frameOf(f, clientMAC, broadcastMAC, layers.EthernetTypeIPv4, ip, &layers.UDP{SrcPort: 68, DstPort: 67}, gopacket.Payload(offer.ToBytes())))
	six := func(options string) []byte {
		b := append([]byte{3, 1, 2, 3}, bytesOf(f, options)...)
		return frame6Of(f, b, linkLocal.String(), "ff02::1:2")
	}
	f.Add(six(withClient + withServer + asked))
	f.Add(six(withClient + withServer + naming(otherIn)))
	f.Add(whoHas(f, "172.16.3.1", "172.16.3.4", nil))
	f.Add(solicitation(f, linkLocal.String(), "ff02::1", "fd00:db8:1::9", 255))
	f.Add(solicitation(f, linkLocal.String(), "ff02::2", "", 255))
	r := responderFor(nicOf("172.16.3.4", "fd00:db8:1::4"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		out := r.answer(frame, 1500)
		if out == nil {
			return
		}
		const most = 14 + 40 + 8 + 1200
		to := net.HardwareAddr(out[:6])
		if len(out) > most || !bytes.Equal(out[6:12], gatewayMAC) ||
			!bytes.Equal(to, frame[6:12]) && !bytes.Equal(to, broadcastMAC) && !bytes.Equal(to, allNodesMAC) {
			t.Errorf("%d bytes: % x", len(out), out)
		}
		decoded(t, out)
	})
}
