package tun

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

func TestHeaderEncodeAndDecodeAreInverse(t *testing.T) {
	tests := []struct {
		name   string
		header Header
	}{
		{"a complete packet has a zero header", Header{}},
		{"a TCP superpacket", Header{FlagNeedsCsum, GSOTCPv4 | GSOECN, 54, 1448, 20, 16}},
		{"every field has its own bytes", Header{1, 2, 0x0304, 0x0506, 0x0708, 0x090a}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b [HeaderLen]byte
			test.header.Encode(&b)
			var got Header
			got.Decode(&b)
			if got != test.header {
				t.Errorf("got %+v, want %+v", got, test.header)
			}
			if binary.NativeEndian.Uint16(b[4:]) != test.header.GSOSize {
				t.Errorf("segment size is not in the machine's byte order at offset 4: %x", b)
			}
		})
	}
}

func FuzzQuickChecksumIsTheSlowOne(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Add([]byte(strings.Repeat("\xff", 33)))
	f.Add([]byte("an odd number of bytes, and some more."))
	f.Fuzz(func(t *testing.T, b []byte) {
		if quick, slow := Sum(b), packettest.Sum(b); quick%0xffff != slow%0xffff {
			t.Errorf("%x: sum %#04x, want %#04x", b, quick, slow)
		}
	})
}

func TestCompletedChecksumVerifies(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		packet := make([]byte, 40+random.IntN(100))
		for i := range packet {
			packet[i] = byte(random.Uint32())
		}
		h := Header{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 16}
		// The receiver adds the pseudo-header's sum to the segment's and wants all ones.
		pseudo := uint16(random.Uint32())
		binary.BigEndian.PutUint16(packet[36:], pseudo)
		if !completeChecksum(packet, &h) {
			t.Fatal("offsets inside the packet were refused")
		}
		total := uint32(packettest.Sum(packet[20:])) + uint32(pseudo)
		if total%0xffff != 0 {
			t.Fatalf("segment %x with pseudo-header sum %#x does not verify", packet[20:], pseudo)
		}
	}
}

func TestACompletedChecksumIsNeverZero(t *testing.T) {
	packet := make([]byte, 48)
	h := Header{Flags: FlagNeedsCsum, CsumStart: 20, CsumOffset: 6}
	binary.BigEndian.PutUint16(packet[26:], 0xffff) // the pseudo-header's sum; its complement is 0
	if !completeChecksum(packet, &h) || binary.BigEndian.Uint16(packet[26:]) != 0xffff {
		t.Errorf("the checksum is %#04x, want 0xffff: 0 means that there is none", binary.BigEndian.Uint16(packet[26:]))
	}
}

func TestChecksumOffsetsOutsideThePacketAreRefused(t *testing.T) {
	for _, h := range []Header{
		{CsumStart: 20, CsumOffset: 19},
		{CsumStart: 39, CsumOffset: 0},
		{CsumStart: 0xffff, CsumOffset: 0xffff},
	} {
		if completeChecksum(make([]byte, 40), &h) {
			t.Errorf("%+v: accepted for a packet of 40 bytes", h)
		}
	}
}

func TestParseOffload(t *testing.T) {
	for word, want := range map[string]Offload{"auto": Auto, "": Auto, "tso": TSO, "off": Off} {
		got, err := ParseOffload(word)
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", word, got, err, want)
		}
		if word != "" && got.String() != word {
			t.Errorf("%q: String gives %q", word, got)
		}
	}
	if _, err := ParseOffload("fast"); err == nil || !strings.Contains(err.Error(), "auto, tso or off") {
		t.Errorf("an unknown word must be refused with the known ones: %v", err)
	}
}

func TestConfigIsCheckedBeforeTheKernelIsAsked(t *testing.T) {
	prefixes := func(list ...string) (p []netip.Prefix) {
		for _, s := range list {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	tests := []struct {
		name   string
		config Config
		want   string // in the error
	}{
		{"a device needs a name", Config{}, "name"},
		{"a name has at most 15 bytes", Config{Name: "sixteen-bytes-xx"}, "at most 15"},
		{"a name holds no slash", Config{Name: "a/b"}, "/"},
		{"a name is no template", Config{Name: "tun%d"}, "%"},
		{"a namespace's name is no path", Config{Name: "a", Namespace: "../x"}, "/"},
		{"creating needs a namespace's name", Config{Name: "a", CreateNamespace: true}, "needs a name"},
		{"an MTU below IPv4's smallest", Config{Name: "a", MTU: 67}, "68 to"},
		{"more queues than the kernel has", Config{Name: "a", Queues: 257}, "1 to 256"},
		{"a negative queue length", Config{Name: "a", TxQueueLen: -1}, "-1"},
		{"an address listed twice", Config{Name: "a", Addresses: prefixes("10.0.0.1/24", "10.0.0.1/16")}, "twice"},
		{"an address that is none", Config{Name: "a", Addresses: make([]netip.Prefix, 1)}, "not an IPv4 or IPv6 address"},
		{"a route that is none", Config{Name: "a", Routes: make([]netip.Prefix, 1)}, "route"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := test.config.withDefaults()
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrConfig with %q", err, test.want)
			}
		})
	}
	c, err := Config{Name: "fifteen-bytes-x"}.withDefaults()
	if err != nil || c.MTU != DefaultMTU || c.Queues != 1 || c.TxQueueLen != DefaultTxQueueLen {
		t.Errorf("zero values must become the documented defaults: %+v, %v", c, err)
	}
}
