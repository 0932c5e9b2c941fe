package peers

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/slackhq/nebula"
	"github.com/slackhq/nebula/cert"
	"github.com/slackhq/nebula/firewall"
	"go4.org/netipx"
	"tailscale.com/net/ipset"
	"tailscale.com/net/packet"
	"tailscale.com/types/ipproto"
	"tailscale.com/types/logger"
	"tailscale.com/types/views"
	"tailscale.com/wgengine/filter"
)

// The measured packets arrive from far at near. One rule, the last, allows them to port 80.
var far, near = netip.MustParseAddr("10.0.1.4"), netip.MustParseAddr("10.0.3.4")

const (
	allowedPort, deniedPort = 80, 22
	// flows are measured in turn: no more than tailscale's table of UDP flows holds, 512.
	flows = 256
)

// stranger is the source of rule i, as nsgd's benchmarks have it: none but the last meets what is measured.
func stranger(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)}), 32)
}

// verdict decides about the bytes of an arriving packet.
type verdict func(b []byte) bool

// peer makes a filter with rules, in which the flows that begin are established.
type peer struct {
	name string
	make func(b testing.TB, rules int, begin [][]byte) verdict
}

var peers = []peer{{"tailscale", tailscaleFilter}, {"nebula", nebulaFirewall}}

// tailscaleFilter knows TCP flows by their flags alone, and UDP flows that this end began.
func tailscaleFilter(t testing.TB, rules int, begin [][]byte) verdict {
	var list []filter.Match
	add := func(source netip.Prefix, ports filter.PortRange, protocols ...ipproto.Proto) {
		list = append(list, filter.Match{
			IPProto: views.SliceOf(protocols), Srcs: []netip.Prefix{source}, SrcsContains: ipset.NewContainsIPFunc(views.SliceOf([]netip.Prefix{source})),
			Dsts: []filter.NetPortRange{{Net: netip.PrefixFrom(near, 32), Ports: ports}},
		})
	}
	for i := range rules - 1 {
		add(stranger(i), filter.PortRange{First: 0, Last: 65535}, ipproto.TCP)
	}
	add(netip.PrefixFrom(far, 32), filter.PortRange{First: allowedPort, Last: allowedPort}, ipproto.TCP, ipproto.UDP)
	var local netipx.IPSetBuilder
	local.Add(near)
	set, err := local.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	f := filter.New(list, nil, set, nil, nil, logger.Discard)
	var p packet.Parsed
	for _, b := range begin {
		p.Decode(reply(b))
		f.RunOut(&p, 0)
	}
	return func(b []byte) bool {
		p.Decode(b)
		return f.RunIn(&p, filter.LogDrops|filter.LogAccepts) == filter.Accept
	}
}

//go:linkname nebulaParse github.com/slackhq/nebula.newPacket
func nebulaParse(data []byte, incoming bool, p *firewall.Packet) error

// nebulaFirewall is without the cache that a routine has beside others: the flow table is asked about every packet.
func nebulaFirewall(t testing.TB, rules int, begin [][]byte) verdict {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(name string, ca cert.Certificate, networks ...netip.Prefix) cert.Certificate {
		now := time.Now().Truncate(time.Second)
		c, err := (&cert.TBSCertificate{
			Version: cert.Version2, Name: name, IsCA: ca == nil, Networks: networks, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
			PublicKey: public, Curve: cert.Curve_CURVE25519,
		}).Sign(ca, cert.Curve_CURVE25519, private)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca := sign("ca", nil)
	pool := cert.NewCAPool()
	if err := pool.AddCA(ca); err != nil {
		t.Fatal(err)
	}
	verified, err := pool.VerifyCertificate(time.Now(), sign("far", ca, netip.PrefixFrom(far, 16)))
	if err != nil {
		t.Fatal(err)
	}
	f := nebula.NewFirewall(slog.New(slog.DiscardHandler), 12*time.Minute, 3*time.Minute, 10*time.Minute, sign("near", ca, netip.PrefixFrom(near, 16)))
	for i := range rules - 1 {
		err = errors.Join(err, f.AddRule(true, firewall.ProtoTCP, firewall.PortAny, firewall.PortAny, nil, "", stranger(i).String(), "", "", ""))
	}
	for _, protocol := range []uint8{firewall.ProtoTCP, firewall.ProtoUDP} {
		err = errors.Join(err, f.AddRule(true, protocol, allowedPort, allowedPort, nil, "", netip.PrefixFrom(far, 32).String(), "", "", ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &nebula.HostInfo{ConnectionState: &nebula.ConnectionState{}}
	setHidden(h, "vpnAddrs", []netip.Addr{far})
	setHidden(h.ConnectionState, "peerCert", verified)
	var p firewall.Packet
	decide := func(b []byte) bool {
		return nebulaParse(b, true, &p) == nil && f.Drop(p, true, h, pool, nil) == nil
	}
	for _, b := range begin {
		if !decide(b) {
			t.Fatal("a flow does not begin")
		}
	}
	return decide
}

// setHidden sets a field that only nebula's own package can: a host comes from a handshake, which is not measured.
func setHidden(of any, field string, value any) {
	f := reflect.ValueOf(of).Elem().FieldByName(field)
	reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem().Set(reflect.ValueOf(value))
}

// segment is a TCP segment with a timestamp, and datagram a UDP datagram, each with 64 bytes of payload, from far to near.
func segment(from, to uint16, flags byte) []byte {
	b := header(ipproto.TCP, 32+64)
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	b[32], b[33] = 8<<4, flags
	copy(b[40:], []byte{1, 1, 8, 10})
	return b
}

func datagram(from, to uint16) []byte {
	b := header(ipproto.UDP, 8+64)
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	binary.BigEndian.PutUint16(b[24:], 8+64)
	return b
}

// header leaves the checksum out: neither filter looks at it.
func header(protocol ipproto.Proto, length int) []byte {
	b := make([]byte, 20+length)
	b[0], b[8], b[9] = 4<<4|5, 64, byte(protocol)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], far.AsSlice())
	copy(b[16:], near.AsSlice())
	return b
}

// reply goes from near to far.
func reply(b []byte) []byte {
	r := append([]byte(nil), b...)
	copy(r[12:16], b[16:20])
	copy(r[16:20], b[12:16])
	copy(r[20:22], b[22:24])
	copy(r[22:24], b[20:22])
	return r
}

const synFlag, ackFlag = 0x02, 0x10

// kinds are as nsgd's BenchmarkCarry names them.
var kinds = []struct {
	name        string
	begin, make func(i uint16) []byte // begin: of the flow; nil: there is none
	allowed     bool
}{
	{"established-TCP", func(i uint16) []byte { return segment(10_000+i, allowedPort, synFlag) }, func(i uint16) []byte { return segment(10_000+i, allowedPort, ackFlag) }, true},
	{"established-UDP", func(i uint16) []byte { return datagram(10_000+i, allowedPort) }, func(i uint16) []byte { return datagram(10_000+i, allowedPort) }, true},
	{"denied", nil, func(i uint16) []byte { return segment(10_000+i, deniedPort, synFlag) }, false},
}

func BenchmarkCarry(b *testing.B) {
	for _, k := range kinds {
		var begin, packets [][]byte
		for i := range uint16(flows) {
			packets = append(packets, k.make(i))
			if k.begin != nil {
				begin = append(begin, k.begin(i))
			}
		}
		for _, rules := range []int{10, 1000} {
			for _, p := range peers {
				b.Run(fmt.Sprintf("%s/%s/rules=%d", p.name, k.name, rules), func(b *testing.B) {
					decide := p.make(b, rules, begin)
					b.ReportAllocs()
					i := 0
					for b.Loop() {
						if decide(packets[i%flows]) != k.allowed {
							b.Fatalf("allowed: %v", !k.allowed)
						}
						i++
					}
				})
			}
		}
	}
}

// TestFiltersDecide holds that what is measured is what it is called.
func TestFiltersDecide(t *testing.T) {
	for _, p := range peers {
		fresh := p.make(t, 10, nil)
		for _, tt := range []struct {
			name   string
			packet []byte
			want   bool
		}{
			{"a SYN to the allowed port", segment(1, allowedPort, synFlag), true},
			{"a datagram to the allowed port", datagram(1, allowedPort), true},
			{"a SYN to another port", segment(1, deniedPort, synFlag), false},
			{"a datagram to another port", datagram(1, deniedPort), false},
		} {
			if got := fresh(tt.packet); got != tt.want {
				t.Errorf("%s: %s: allowed %v, want %v", p.name, tt.name, got, tt.want)
			}
		}
	}
	// A rule alone does not let this one in, so its flow must.
	answered := datagram(1, deniedPort)
	if !tailscaleFilter(t, 10, [][]byte{answered})(answered) {
		t.Error("tailscale: an answer to a datagram is denied")
	}
}
