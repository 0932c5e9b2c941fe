// Package pcapng writes packets in the PCAP Next Generation format
// (draft-ietf-opsawg-pcapng): with interfaces, and with a comment for each packet, which
// gopacket's writer has no place for. It imports nothing but the standard library.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Block types, options and link types of the format.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // enhanced

	byteOrder = 0x1a2b3c4d
	linkRaw   = 101 // LINKTYPE_RAW: the packet begins with its IPv4 or IPv6 header

	optionEnd         = 0
	optionComment     = 1
	optionApplication = 4 // of a section
	optionName        = 2 // of an interface
	optionDescription = 3
	optionResolution  = 9
	optionFlags       = 2    // of a packet
	flagInbound       = 0b01 // received on the interface
	nanoseconds       = 9    // resolution: ten to the power of minus nine
	maxOption         = 65_535
	maxInterfaces     = 1 << 16
	align             = 4
)

// MaxComment is the longest comment; what is longer is cut off.
const MaxComment = maxOption

// Interface is one that packets come in on.
type Interface struct{ Name, Description string }

// Packet is one captured IP packet.
type Packet struct {
	Interface int       // by place in the list given to NewWriter
	Time      time.Time // from 1970 to 2554, with nanoseconds
	Data      []byte    // as much of it as was kept
	Length    int       // of all of it; at least that of Data
	Comment   string    // empty: none
}

// Writer writes one section. It is for one goroutine; an error stays.
type Writer struct {
	w          io.Writer
	block      []byte
	interfaces int
	err        error
}

// NewWriter writes the section's header and its interfaces. snapLen is the most that is
// kept of a packet, 0 for no limit.
func NewWriter(w io.Writer, application string, snapLen int, interfaces []Interface) (*Writer, error) {
	if len(interfaces) > maxInterfaces {
		return nil, fmt.Errorf("pcapng: %d interfaces: allowed are %d", len(interfaces), maxInterfaces)
	}
	f := &Writer{w: w, interfaces: len(interfaces)}
	f.begin(blockSection)
	f.u32(byteOrder)
	f.u16(1) // version 1.0
	f.u16(0)
	f.u32(^uint32(0)) // the section's length is not known
	f.u32(^uint32(0))
	f.option(optionApplication, application)
	f.end()
	for i := range interfaces {
		f.begin(blockInterface)
		f.u16(linkRaw)
		f.u16(0)
		f.u32(uint32(snapLen))
		f.option(optionName, interfaces[i].Name)
		f.option(optionDescription, interfaces[i].Description)
		f.option(optionResolution, string([]byte{nanoseconds}))
		f.end()
	}
	return f, f.err
}

// Write writes a packet.
func (f *Writer) Write(p *Packet) error {
	if p.Interface < 0 || p.Interface >= f.interfaces {
		return fmt.Errorf("pcapng: interface %d: there are %d", p.Interface, f.interfaces)
	}
	if p.Length < len(p.Data) {
		return fmt.Errorf("pcapng: %d bytes of a packet of %d", len(p.Data), p.Length)
	}
	at := uint64(p.Time.UnixNano())
	f.begin(blockPacket)
	f.u32(uint32(p.Interface))
	f.u32(uint32(at >> 32))
	f.u32(uint32(at))
	f.u32(uint32(len(p.Data)))
	f.u32(uint32(p.Length))
	f.block = append(f.block, p.Data...)
	f.pad()
	f.option(optionFlags, string([]byte{flagInbound, 0, 0, 0}))
	f.option(optionComment, p.Comment)
	f.end()
	return f.err
}

func (f *Writer) u16(v uint16) { f.block = binary.LittleEndian.AppendUint16(f.block, v) }
func (f *Writer) u32(v uint32) { f.block = binary.LittleEndian.AppendUint32(f.block, v) }

// begin leaves the length open, which end fills in.
func (f *Writer) begin(block uint32) {
	f.block = f.block[:0]
	f.u32(block)
	f.u32(0)
}

func (f *Writer) option(code uint16, value string) {
	if value == "" {
		return
	}
	value = value[:min(len(value), maxOption)]
	f.u16(code)
	f.u16(uint16(len(value)))
	f.block = append(f.block, value...)
	f.pad()
}

func (f *Writer) pad() {
	for len(f.block)%align != 0 {
		f.block = append(f.block, 0)
	}
}

// end closes the options and writes the block.
func (f *Writer) end() {
	f.u16(optionEnd)
	f.u16(0)
	length := uint32(len(f.block) + 4)
	f.u32(length)
	binary.LittleEndian.PutUint32(f.block[4:], length)
	if f.err == nil {
		_, f.err = f.w.Write(f.block)
	}
}
