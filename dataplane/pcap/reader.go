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
	// Length is how long the packet was when it was captured.
	Length int
	// Comment is the packet's first comment in a pcapng file; borrowed until the next Next.
	Comment []byte
}

// Reader reads one capture. It is owned by one goroutine.
type Reader struct {
	cancel context.CancelFunc
	ahead  *ahead
	in     *bufio.Reader
	format format
	count  int
}

// format is what differs between pcap and pcapng.
type format interface {
	next(*Packet) error // all but Number
	interfaces() []string
}

// NewReader begins to read a capture. It waits for the file's header. Call Close in the end;
// when ctx is done, Next fails with its cause, even while a read hangs.
func NewReader(ctx context.Context, in io.Reader) (*Reader, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &Reader{cancel: cancel}
	if err := r.open(ctx, in); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, in io.Reader) error {
	r.ahead = newAhead(ctx, in)
	plain := bufio.NewReaderSize(r.ahead, maxBlock)
	magic, err := plain.Peek(4)
	if err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		packed, err := gzip.NewReader(plain)
		if err != nil {
			return err
		}
		r.ahead = newAhead(ctx, packed)
		plain = bufio.NewReaderSize(r.ahead, maxBlock)
		magic, err = plain.Peek(4)
		if err != nil {
			return headerError(err)
		}
	}
	if err != nil {
		return headerError(err)
	}
	r.in = plain
	if binary.BigEndian.Uint32(magic) == sectionHeader { // the same in either byte order
		r.format, err = newBlocks(r.in)
	} else {
		r.format, err = newClassic(r.in)
	}
	return err
}

func headerError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("too short for a capture")
	}
	return err
}

// Close ends the reading ahead; what it reads from stays open.
func (r *Reader) Close() { r.cancel() }

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

// Interfaces are the names of the interfaces that a pcapng file has told of so far, in all of its
// sections; before the first packet that is usually all of them.
func (r *Reader) Interfaces() []string { return r.format.interfaces() }

// Waits reports that the next packet is not at hand yet: Next may have to wait for it.
func (r *Reader) Waits() bool { return r.in.Buffered() == 0 && r.ahead.waits() }

// classic is a pcap file.
type classic struct {
	*pcapgo.Reader
	link LinkType
}

func newClassic(in *bufio.Reader) (*classic, error) {
	header, err := in.Peek(24)
	if err != nil {
		return nil, headerError(err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	if header[0] == 0xa1 {
		order = binary.BigEndian
	}
	// gopacket keeps eight bits of the link type, which has sixteen. The rest says whether the
	// frames have their check sequence.
	link := LinkType(order.Uint32(header[20:]))
	magic := binary.BigEndian.Uint32(header)
	r, err := pcapgo.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("neither pcap nor pcapng: it begins with %08x: %w", magic, err)
	}
	// Some writers cut nothing off but say that they do, and readers by custom believe the packets.
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
