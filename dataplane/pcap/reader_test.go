package pcap

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// read gives a line a packet, and why reading ended.
func read(t *testing.T, file []byte) (lines []string, err error) {
	t.Helper()
	r, err := NewReader(t.Context(), bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		var p Packet
		if err := r.Next(&p); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%d %s %s %s %x/%d %s", p.Number, p.Time.Format(time.RFC3339Nano), p.Interface, p.Link, p.Data, p.Length, p.Comment))
	}
}

// block is a pcapng block.
func block(order binary.AppendByteOrder, kind uint32, body ...byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := order.AppendUint32(nil, kind)
	b = order.AppendUint32(b, uint32(len(body)+12))
	return order.AppendUint32(append(b, body...), uint32(len(body)+12))
}

func section(order binary.AppendByteOrder) []byte {
	b := order.AppendUint32(nil, byteOrderMagic)
	b = order.AppendUint16(order.AppendUint16(b, 1), 0)
	return block(order, sectionHeader, append(b, 255, 255, 255, 255, 255, 255, 255, 255)...)
}

func option(order binary.AppendByteOrder, code uint16, value string) []byte {
	b := append(order.AppendUint16(order.AppendUint16(nil, code), uint16(len(value))), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func intf(order binary.AppendByteOrder, link uint16, options ...[]byte) []byte {
	b := order.AppendUint32(order.AppendUint16(order.AppendUint16(nil, link), 0), 0)
	return block(order, interfaceDescription, append(b, slices.Concat(options...)...)...)
}

func enhanced(order binary.AppendByteOrder, id uint32, stamp uint64, data string, length uint32, options ...[]byte) []byte {
	b := order.AppendUint32(nil, id)
	b = order.AppendUint32(order.AppendUint32(b, uint32(stamp>>32)), uint32(stamp))
	b = append(order.AppendUint32(order.AppendUint32(b, uint32(len(data))), length), data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return block(order, enhancedPacket, append(b, slices.Concat(options...)...)...)
}

func TestPcapngTellsInterfacesTimesLengthsAndComments(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		seconds := uint64(noon.Unix())
		file := slices.Concat(section(order),
			intf(order, 1, option(order, interfaceName, "vm1-nic")),
			intf(order, 276, option(order, interfaceName, "internet"), option(order, interfaceTimeResolution, "\x09"), option(order, optionEnd, "")),
			block(order, 0x0bad, make([]byte, 2<<20)...), // of no account, however long
			enhanced(order, 0, seconds*1_000_000+5, "abcde", 1500, option(order, 2988, "x"), option(order, optionComment, "verdict=Deny"), option(order, optionComment, "another")),
			enhanced(order, 1, seconds*1_000_000_000+7, "abcd", 4),
			block(order, simplePacket, append(order.AppendUint32(nil, 3), "xyz"...)...),
			section(order), intf(order, 101, option(order, interfaceTimeResolution, "\x81"), option(order, interfaceTimeOffset, string(order.AppendUint64(nil, seconds)))),
			enhanced(order, 0, 3, "p", 1),
			// Nanoseconds since 1970 cannot count to the year 2262 and beyond.
			section(order), intf(order, 101, option(order, interfaceTimeResolution, "\x00")), enhanced(order, 0, 9_223_372_034, "q", 1), enhanced(order, 0, 9_223_372_037, "r", 1))
		got, err := read(t, file)
		want := []string{
			"1 2026-03-01T12:00:00.000005Z vm1-nic Ethernet 6162636465/1500 verdict=Deny",
			"2 2026-03-01T12:00:00.000000007Z internet Linux SLL2 61626364/4 ",
			"3 0001-01-01T00:00:00Z vm1-nic Ethernet 78797a/3 ",
			"4 2026-03-01T12:00:01.5Z  raw IP 70/1 ",
			"5 2262-04-11T23:47:14Z  raw IP 71/1 ",
			"6 0001-01-01T00:00:00Z  raw IP 72/1 ",
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v: %v (-want +got):\n%s", order, err, diff)
		}
	}
}

func TestPcapOfEitherByteOrderAndTimeUnitIsReadAndItsGzip(t *testing.T) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for magic, fraction := range map[uint32]string{0xa1b2c3d4: ".000007Z", 0xa1b23c4d: ".000000007Z"} {
			for link, name := range map[uint32]string{1: "Ethernet", 276: "Linux SLL2", 257: "link type 257", 0xf0000001: "Ethernet"} {
				b := order.AppendUint32(nil, magic)
				b = order.AppendUint16(order.AppendUint16(b, 2), 4)
				b = append(b, make([]byte, 8)...)
				b = order.AppendUint32(order.AppendUint32(b, 0), link) // a snap length that nothing keeps to
				b = order.AppendUint32(order.AppendUint32(b, uint32(noon.Unix())), 7)
				b = append(order.AppendUint32(order.AppendUint32(b, 3), 60), "abc"...)
				var packed bytes.Buffer
				z := gzip.NewWriter(&packed)
				z.Write(b)
				z.Close()
				want := []string{"1 2026-03-01T12:00:00" + fraction + "  " + name + " 616263/60 "}
				for _, file := range [][]byte{b, packed.Bytes()} {
					if got, err := read(t, file); err != nil || !slices.Equal(got, want) {
						t.Errorf("%v %x link %d: %q, %v", order, magic, link, got, err)
					}
				}
				for n := len(b) - 1; n > 24; n-- {
					if _, err := read(t, b[:n]); !errors.Is(err, ErrTruncated) {
						t.Errorf("%d of %d bytes: error %v", n, len(b), err)
					}
				}
			}
		}
	}
}

// gopacket's reader is the reference for what it reads.
func TestPcapngIsReadAsGopacketReadsIt(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var file bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&file, pcapgo.NgInterface{Name: "a", LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AddInterface(pcapgo.NgInterface{Name: "b", LinkType: layers.LinkTypeRaw, TimestampResolution: 6}); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		data := make([]byte, random.IntN(2000))
		info := gopacket.CaptureInfo{Timestamp: noon.Add(time.Duration(random.Int64N(1e15))), InterfaceIndex: random.IntN(2), CaptureLength: len(data), Length: len(data) + random.IntN(2)*100}
		if err := w.WritePacket(info, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	var want []string
	reference, err := pcapgo.NewNgReader(bytes.NewReader(file.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, info, err := reference.ReadPacketData()
		if err != nil {
			break
		}
		i, _ := reference.Interface(info.InterfaceIndex)
		want = append(want, fmt.Sprintf("%d %s %s %s %x/%d ", len(want)+1, info.Timestamp.Format(time.RFC3339Nano), i.Name, LinkType(i.LinkType), data, info.Length))
	}
	got, err := read(t, file.Bytes())
	if diff := cmp.Diff(want, got); diff != "" || err != nil || len(got) != 2000 {
		t.Errorf("%d packets, %v (-gopacket +got):\n%s", len(got), err, diff)
	}
}

func TestABrokenFileSaysWhatIsWrong(t *testing.T) {
	order := binary.LittleEndian
	head := slices.Concat(section(order), intf(order, 1))
	good := enhanced(order, 0, 0, "abcd", 4)
	with := func(at int, v byte) []byte {
		b := slices.Clone(good)
		b[at] = v
		return b
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "too short for a capture"},
		{"text", []byte(strings.Repeat("hello, ", 10)), "neither pcap nor pcapng: it begins with 68656c6c"},
		{"a length that is no multiple of four", append(slices.Clone(head), with(4, 37)...), "length 37: allowed are multiples of 4 from 12 on"},
		{"a length too long for a packet", append(slices.Clone(head), with(6, 0x20)...), "at most 1048576"},
		{"lengths that differ", append(slices.Clone(head), with(len(good)-4, 40)...), "length 40 at its end: its head says 36"},
		{"an interface that is not there", append(slices.Clone(head), with(8, 1)...), "interface 1: the section has described 1"},
		{"more captured than is there", append(slices.Clone(head), with(20, 5)...), "5 bytes captured: the block has room for 4"},
		{"a decimal time resolution that cannot be counted", append(section(order), intf(order, 1, option(order, interfaceTimeResolution, "\x14"))...), "time resolution"},
		{"a time resolution that cannot be counted", append(section(order), intf(order, 1, option(order, interfaceTimeResolution, "\x7f"))...), "time resolution"},
		{"another version", bytes.Replace(section(order), []byte{1, 0, 0, 0}, []byte{9, 0, 0, 0}, 1), "version 9: allowed is 1"},
		{"a cut packet", append(slices.Clone(head), good[:len(good)-1]...), ErrTruncated.Error()},
		{"a cut head", append(slices.Clone(head), good[:5]...), ErrTruncated.Error()},
	} {
		if _, err := read(t, tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

func TestAnOptionEndsWithItsBlock(t *testing.T) {
	order := binary.LittleEndian
	beyond := option(order, optionComment, "abcd")
	beyond[2] = 200 // its length
	file := slices.Concat(section(order), intf(order, 1), enhanced(order, 0, 0, "data", 4, beyond))
	if got, err := read(t, file); err != nil || len(got) != 1 || !strings.HasSuffix(got[0], "64617461/4 ") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAReadThatHangsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, w := io.Pipe()
	defer w.Close()
	go w.Write(slices.Concat(section(binary.LittleEndian), intf(binary.LittleEndian, 1), enhanced(binary.LittleEndian, 0, 0, "a", 1)))
	r, err := NewReader(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	var p Packet
	if err := r.Next(&p); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := r.Next(&p); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestIPIsFoundBehindEveryLinkHeader(t *testing.T) {
	const ip = "\x45 the packet"
	ethernet := strings.Repeat("e", 12)
	for _, tt := range []struct {
		name string
		link LinkType
		head string
	}{
		{"Ethernet", Ethernet, ethernet + "\x08\x00"},
		{"Ethernet, IPv6", Ethernet, ethernet + "\x86\xdd"},
		{"Ethernet, VLANs", Ethernet, ethernet + "\x88\xa8\x00\x01\x81\x00\x00\x02\x08\x00"},
		{"Linux SLL", LinuxCooked, strings.Repeat("s", 14) + "\x08\x00"},
		{"Linux SLL2", LinuxCooked2, "\x08\x00" + strings.Repeat("s", 18)},
		{"Linux SLL2, VLAN", LinuxCooked2, "\x81\x00" + strings.Repeat("s", 18) + "\x00\x01\x08\x00"},
		{"BSD loopback", Null, "\x02\x00\x00\x00"},
		{"macOS loopback, IPv6", Null, "\x1e\x00\x00\x00"},
		{"OpenBSD loopback", Loop, "\x00\x00\x00\x02"},
		{"raw IP", Raw, ""},
	} {
		p := Packet{Link: tt.link, Data: []byte(tt.head + ip), Length: len(tt.head) + 100}
		if got, length, content := p.IP(); string(got) != ip || length != 100 || content != IP {
			t.Errorf("%s: %q of %d bytes, %v", tt.name, got, length, content)
		}
		for n := range len(tt.head) + 1 {
			if p.Data = []byte(tt.head)[:n]; len(p.Data) <= len(tt.head) {
				if _, _, content := p.IP(); content != Cut {
					t.Errorf("%s: %d bytes of the header are %v", tt.name, n, content)
				}
			}
		}
	}
	for _, tt := range []struct {
		link LinkType
		data string
		want Content
	}{{Ethernet, ethernet + "\x08\x06ARP", NotIP}, {LinuxCooked2, "\x08\x06" + ethernet + ethernet, NotIP}, {Null, "\x07\x00\x00\x00\x45", NotIP}, {105, "wifi", UnknownLink}} {
		p := Packet{Link: tt.link, Data: []byte(tt.data)}
		if _, _, content := p.IP(); content != tt.want {
			t.Errorf("%s: %q is %v, want %v", tt.link, tt.data, content, tt.want)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		f.Add(slices.Concat(section(order), intf(order, 1, option(order, interfaceTimeResolution, "\x09")), enhanced(order, 0, 1<<60, "abcde", 9, option(order, 1, "c"))))
		f.Add(append(order.AppendUint32(order.AppendUint32(nil, 0xa1b2c3d4), 0x00040002), make([]byte, 40)...))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := NewReader(t.Context(), bytes.NewReader(file))
		if err != nil {
			return
		}
		defer r.Close()
		var p Packet
		for n := 0; r.Next(&p) == nil; n++ {
			if n > len(file)/16 {
				t.Fatal("more packets than there is room for")
			}
			if _, err := p.Time.MarshalJSON(); err != nil {
				t.Error(err)
			}
			p.IP()
		}
	})
}

// endless gives parts of a file again and again, as a small compressed file can.
type endless struct {
	head, part []byte
	next       func(n int) // changes part; nil: it stays
	n, at      int
}

func (e *endless) Read(b []byte) (int, error) {
	if len(e.head) > 0 {
		n := copy(b, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	if e.at == len(e.part) {
		if e.at = 0; e.next != nil {
			e.n++
			e.next(e.n)
		}
	}
	n := copy(b, e.part[e.at:])
	e.at += n
	return n, nil
}

// What a capture describes takes a bounded room, and each of these ends though the file does not.
func TestHostile08PcapngNames(t *testing.T) {
	order := binary.LittleEndian
	long := strings.Repeat("a", 65_532)
	numbered := func(pad string) *endless {
		e := &endless{head: section(order)}
		e.next = func(n int) { e.part = intf(order, 101, option(order, interfaceName, fmt.Sprint(n, pad))) }
		e.next(0)
		return e
	}
	for _, tt := range []struct {
		name string
		file io.Reader
		want string
	}{
		{"interfaces with long names", &endless{head: section(order), part: intf(order, 101, option(order, interfaceName, long))}, "65532 bytes: allowed are 1024"},
		{"interfaces without names", &endless{head: section(order), part: intf(order, 101)}, "more than 65536 interfaces"},
		{"interfaces of one name in as many sections", &endless{head: section(order), part: slices.Concat(section(order), intf(order, 101, option(order, interfaceName, "eth0")))}, "without a packet"},
		{"interfaces with names of their own", numbered(""), "more than 65536"},
		{"interfaces with names of their own in many sections", func() io.Reader {
			e := &endless{head: section(order)}
			e.next = func(n int) {
				e.part = slices.Concat(section(order), intf(order, 101, option(order, interfaceName, fmt.Sprint(n))))
			}
			e.next(0)
			return e
		}(), "more than 65536 names"},
		{"names of a kilobyte", numbered(strings.Repeat("x", 1000)), "4194304 bytes"},
		{"options without end", &endless{head: section(order), part: intf(order, 101, slices.Repeat(option(order, 99, "x"), 1000))}, "without a packet"},
		{"blocks of no account", &endless{head: section(order), part: block(order, 0x0bad, make([]byte, 1<<20)...)}, "without a packet"},
	} {
		if testing.Short() && tt.name != "options without end" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := NewReader(t.Context(), tt.file)
			for err == nil {
				err = r.Next(&Packet{})
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			runtime.GC()
			if runtime.ReadMemStats(&after); after.HeapAlloc > before.HeapAlloc+64<<20 {
				t.Errorf("%d MiB are held", (after.HeapAlloc-before.HeapAlloc)>>20)
			}
			if r != nil {
				r.Close()
			}
		})
	}
}
