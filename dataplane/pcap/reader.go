// Package pcap reads and writes captures. Reader reads pcap of either byte order and time unit,
// pcapng with any number of sections and interfaces, and both compressed by gzip. It reads as a
// stream and in bounded memory, whatever the file claims about itself, and finds the IP packet
// behind the link layer's header. Writer writes pcapng.
package pcap

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/gopacket/pcapgo"
)

// ErrTruncated is the end of a file in the middle of a packet or block.
var ErrTruncated = errors.New("the file ends in the middle of a packet")

// maxBlock bounds what one packet or block may take in memory. libpcap's longest packet has
// 262,144 bytes.
const maxBlock = 1 << 20

// Packet is one packet of a capture.
type Packet struct {
	Number int       // in the file, from 1, as Wireshark counts
	Time   time.Time // zero when the file does not tell
	// Interface is the name of a pcapng interface; often empty, as always in a pcap file.
	Interface string
	Link      LinkType
	// Data are the bytes that were captured, from the link layer's header on; borrowed until the
	// next Next.
	Data []byte
	// Length is the packet's length on the wire.
	Length int
	// Comment is the packet's first comment in a pcapng file; borrowed until the next Next.
	Comment []byte
}

// Stream is a file that is read ahead, and uncompressed where it is compressed by gzip. It is owned by one
// goroutine.
type Stream struct {
	*bufio.Reader
	cancel context.CancelFunc
	ahead  *ahead
}

// NewStream waits for a file's first bytes. When ctx is done, reading fails with its cause, even while a read
// hangs. Call Close in the end.
func NewStream(ctx context.Context, in io.Reader) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &Stream{cancel: cancel, ahead: newAhead(ctx, in)}
	s.Reader = bufio.NewReaderSize(s.ahead, maxBlock)
	magic, err := s.Peek(2)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		packed, err := gzip.NewReader(s.Reader)
		if err != nil {
			cancel()
			return nil, err
		}
		s.ahead = newAhead(ctx, packed)
		s.Reader = bufio.NewReaderSize(s.ahead, maxBlock)
	}
	return s, nil
}

// Close ends the reading ahead; what it reads from stays open.
func (s *Stream) Close() { s.cancel() }

// Waits reports that the next byte is not at hand yet.
func (s *Stream) Waits() bool { return s.Buffered() == 0 && s.ahead.waits() }

// Reader reads one capture. It is owned by one goroutine.
type Reader struct {
	in     *Stream
	format format
	count  int
}

// format reads packets of one format. An error io.EOF is the file's end, io.ErrUnexpectedEOF a cut.
type format interface {
	next(*Packet) error // all but Number
	interfaces() []string
}

// NewReader begins to read a capture. It waits for the file's header. Call Close in the end.
func NewReader(ctx context.Context, in io.Reader) (*Reader, error) {
	s, err := NewStream(ctx, in)
	if err != nil {
		return nil, err
	}
	r, err := s.Capture()
	if err != nil {
		s.Close()
		return nil, err
	}
	return r, nil
}

// Capture reads the stream as a capture.
func (s *Stream) Capture() (*Reader, error) {
	magic, err := s.Peek(4)
	if err != nil {
		return nil, headerError(err)
	}
	open := newClassic
	if kind, found := formats[binary.BigEndian.Uint32(magic)]; found {
		open = kind
	}
	r := &Reader{in: s}
	if r.format, err = open(s.Reader); err != nil {
		return nil, err
	}
	return r, nil
}

// formats are those of files that begin with these four bytes. The others are tried as pcap,
// which begins in many ways.
var formats = map[uint32]func(*bufio.Reader) (format, error){
	sectionHeader: newBlocks, // the same bytes in either byte order
}

func headerError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("too short for a capture")
	}
	return err
}

// Close ends the reading ahead; what it reads from stays open.
func (r *Reader) Close() { r.in.Close() }

// Waits reports that the next packet is not at hand yet: Next may have to wait for it.
func (r *Reader) Waits() bool { return r.in.Waits() }

// Next reads the next packet. It returns io.EOF at the end, and ErrTruncated where the file
// was cut off.
func (r *Reader) Next(p *Packet) error {
	*p = Packet{}
	if err := r.format.next(p); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrTruncated
		}
		return err
	}
	r.count++
	p.Number = r.count
	return nil
}

// Interfaces are the names of the interfaces that a pcapng file has described so far, each once, in all its
// sections. Before the first packet that is usually all of them.
func (r *Reader) Interfaces() []string { return r.format.interfaces() }

// classic is a pcap file.
type classic struct {
	*pcapgo.Reader
	link LinkType
}

func newClassic(in *bufio.Reader) (format, error) {
	header, err := in.Peek(24)
	if err != nil {
		return nil, headerError(err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if header[0] == 0xa1 {
		order = binary.BigEndian
	}
	// gopacket keeps eight bits of the link type, which has sixteen. The higher bits of the field
	// say whether frames end with their check sequence.
	link := LinkType(order.Uint32(header[20:]))
	magic := binary.BigEndian.Uint32(header)
	r, err := pcapgo.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng: it begins with %08x: %w", magic, err)
	}
	// Some writers claim a snap length that their packets exceed; readers believe the packets.
	r.SetSnaplen(maxBlock)
	return &classic{r, link}, nil
}

func (c *classic) interfaces() []string { return nil }

func (c *classic) next(p *Packet) error {
	data, info, err := c.ZeroCopyReadPacketData()
	if err != nil {
		if errors.Is(err, io.EOF) && info.CaptureLength > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	p.Time, p.Link, p.Data, p.Length = info.Timestamp, c.link, data, info.Length
	return nil
}
