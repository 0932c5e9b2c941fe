package pcap

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxOption is the most that an option's 16 bits of length can say.
const maxOption = 65_535

// MaxComment is the longest comment; Write cuts off the rest.
const MaxComment = maxOption

// Interface is what packets come in on.
type Interface struct{ Name, Description string }

// nanoseconds is a time resolution: ten to the power of minus nine seconds.
const nanoseconds = 9

// Writer writes one section of pcapng, with raw IP packets. gopacket's writer has no place for a
// packet's comment. A Writer belongs to one goroutine; after an error it writes nothing more.
type Writer struct {
	w          io.Writer
	snapLen    int
	block      []byte
	interfaces int
	err        error
}

// NewWriter writes the section's header and its interfaces. snapLen is the most bytes that are
// kept of a packet; 0: no limit.
func NewWriter(w io.Writer, application string, snapLen int, interfaces []Interface) (*Writer, error) {
	f := &Writer{w: w, snapLen: snapLen}
	f.begin(sectionHeader)
	f.u32(byteOrderMagic)
	f.u16(1) // version 1.0
	f.u16(0)
	f.u32(^uint32(0)) // the section's length is not known
	f.u32(^uint32(0))
	f.option(sectionApplication, application)
	f.end()
	for _, one := range interfaces {
		if err := f.AddInterface(one); err != nil {
			return nil, err
		}
	}
	return f, f.err
}

// AddInterface writes an interface behind those that are there. It is for the packets that come after it.
func (f *Writer) AddInterface(i Interface) error {
	if f.interfaces == maxInterfaces {
		return fmt.Errorf("pcapng: more than %d interfaces", maxInterfaces)
	}
	f.interfaces++
	f.begin(interfaceDescription)
	f.u16(uint16(Raw))
	f.u16(0)
	f.u32(uint32(f.snapLen))
	f.option(interfaceName, i.Name)
	f.option(interfaceDescribed, i.Description)
	f.option(interfaceTimeResolution, string([]byte{nanoseconds}))
	f.end()
	return f.err
}

// Write writes a packet that came in on an interface, by its number in the order in which they were
// written. It takes Time, from 1970 to 2554, Data, Length and Comment; the other fields are
// the Reader's.
func (f *Writer) Write(on int, p *Packet) error {
	if on < 0 || on >= f.interfaces {
		return fmt.Errorf("pcapng: interface %d: there are %d", on, f.interfaces)
	}
	if p.Length < len(p.Data) {
		return fmt.Errorf("pcapng: %d bytes of a packet of %d", len(p.Data), p.Length)
	}
	at := uint64(p.Time.UnixNano())
	f.begin(enhancedPacket)
	f.u32(uint32(on))
	f.u32(uint32(at >> 32))
	f.u32(uint32(at))
	f.u32(uint32(len(p.Data)))
	f.u32(uint32(p.Length))
	f.block = append(f.block, p.Data...)
	f.pad()
	f.option(packetFlags, string([]byte{flagInbound, 0, 0, 0}))
	f.option(optionComment, string(p.Comment))
	f.end()
	return f.err
}

func (f *Writer) u16(v uint16) { f.block = binary.LittleEndian.AppendUint16(f.block, v) }
func (f *Writer) u32(v uint32) { f.block = binary.LittleEndian.AppendUint32(f.block, v) }

// begin leaves the length to end.
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
	for len(f.block)%blockAlign != 0 {
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
