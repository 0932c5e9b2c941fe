package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	quicFlows = 8
	// quicSize is the payload of a datagram with data, as QUIC sends before it knows a path's MTU. quicAckSize is that
	// of an acknowledgement.
	quicSize, quicAckSize = 1200, 40
	// quicWindow is how many datagrams of an end may be on their way, and quicBatch how many one system call sends at most.
	quicWindow, quicBatch = 64, 16
	// quicTimeout is when an end that may not send takes what is on its way for lost.
	quicTimeout = 25 * time.Millisecond
	// quicBuffer holds a window of each end, however the kernel counts it.
	quicBuffer = 4 << 20
)

// The kinds of datagrams, in their first byte. Numbers follow, little endian.
const (
	quicData = 1 + iota // its own number from 1 on
	quicAck             // the highest number that arrived, and how many did
)

// measureQUIC measures flows of datagrams as QUIC sends them: both ends of each flow send at once, datagrams leave and arrive
// many in a system call (UDP_SEGMENT, UDP_GRO), and acknowledgements open a window of fixed size.
func measureQUIC(t *trial) error {
	ends, err := quicEnds(t.network)
	defer func() {
		for _, e := range ends {
			e.socket.Close()
		}
	}()
	if err != nil {
		return fmt.Errorf("QUIC-like flows: %w", err)
	}
	before, err := readUsage(t.network.pid)
	if err != nil {
		return err
	}
	length := time.Duration(t.seconds) * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, e := range ends {
		group.Go(func() error { return e.run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("QUIC-like flows: %w", err)
	}
	after, err := readUsage(t.network.pid)
	if err != nil {
		return err
	}
	var sums [2]quicEnd // of the clients and of the servers
	for i, e := range ends {
		s := &sums[i%2]
		s.arrived, s.declared, s.sent = s.arrived+e.arrived, s.declared+e.declared, s.sent+e.sent
	}
	if sums[0].arrived == 0 || sums[1].arrived == 0 {
		return fmt.Errorf("QUIC-like flows: the client got %d datagrams, the server %d: nothing passes", sums[0].arrived, sums[1].arrived)
	}
	bits := func(datagrams uint64) float64 { return float64(datagrams) * quicSize * 8 / length.Seconds() }
	t.figure("quic", bits(sums[1].arrived))
	t.figure("quic_reverse", bits(sums[0].arrived))
	t.figure("quic_lost", float64(sums[0].declared+sums[1].declared)/float64(sums[0].sent+sums[1].sent))
	t.cost("quic_gigabyte", after.since(before), float64(sums[0].arrived+sums[1].arrived)*quicSize/1e9)
	return nil
}

// quicEnd is one end of a flow, and what it saw. It is owned by one goroutine.
type quicEnd struct {
	socket *net.UDPConn
	peer   netip.AddrPort // a server's is unknown until a datagram came

	sent     uint64 // datagrams with data, and the number of the last one
	acked    uint64 // the highest number that the other end has seen
	declared uint64 // datagrams that the other end did not get
	known    uint64 // how many the other end has got
	arrived  uint64 // datagrams with data
	highest  uint64 // their highest number
	replies  bool   // the other end has not heard of all that arrived

	out, in, control []byte
}

// quicEnds returns a client and a server for each flow, in turn; with an error too, those that were made.
func quicEnds(n *network) (ends []*quicEnd, err error) {
	address := netip.MustParseAddr(n.address)
	for i := range quicFlows {
		to := netip.AddrPortFrom(address, uint16(quicPort+i))
		client, err := newQUICEnd(n.client, netip.AddrPort{})
		if err != nil {
			return ends, fmt.Errorf("client: %w", err)
		}
		client.peer = to
		ends = append(ends, client)
		server, err := newQUICEnd(n.server, to)
		if err != nil {
			return ends, fmt.Errorf("server: %w", err)
		}
		ends = append(ends, server)
	}
	return ends, nil
}

func newQUICEnd(namespace string, local netip.AddrPort) (*quicEnd, error) {
	e := &quicEnd{out: make([]byte, quicBatch*quicSize), in: make([]byte, 64<<10), control: make([]byte, 256)}
	err := tun.Do(namespace, func() (err error) {
		e.socket, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local))
		return err
	})
	if err != nil {
		return nil, err
	}
	raw, err := e.socket.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, quicBuffer),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, quicBuffer))
		})
		err = errors.Join(err, set)
	}
	if err != nil {
		e.socket.Close()
		return nil, err
	}
	return e, nil
}

// run sends and receives until ctx ends.
func (e *quicEnd) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := e.fill(); err != nil {
			return err
		}
		if err := e.socket.SetReadDeadline(time.Now().Add(quicTimeout)); err != nil {
			return err
		}
		n, controls, _, from, err := e.socket.ReadMsgUDPAddrPort(e.in, e.control)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			e.acked = e.sent // all that is on its way is lost, or its acknowledgements are
		case err != nil:
			return err
		default:
			e.peer = from
			size, err := segmentSize(e.control[:controls], n)
			if err != nil {
				return err
			}
			for b := e.in[:n]; len(b) > 0; b = b[min(size, len(b)):] {
				e.take(b[:min(size, len(b))])
			}
			if err := e.acknowledge(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill sends what the window has room for.
func (e *quicEnd) fill() error {
	for e.peer.IsValid() && e.sent-e.acked < quicWindow {
		n := min(quicWindow-(e.sent-e.acked), quicBatch)
		for i := range n {
			b := e.out[i*quicSize:]
			b[0] = quicData
			binary.LittleEndian.PutUint64(b[1:], e.sent+1+i)
		}
		if err := e.send(e.out[:n*quicSize]); err != nil {
			return err
		}
		e.sent += n
	}
	return nil
}

// send has the kernel cut datagrams of quicSize. What has no room on the way is lost, as it is on a wire.
func (e *quicEnd) send(b []byte) error {
	var control []byte
	if len(b) > quicSize {
		control = segmentControl()
	}
	_, _, err := e.socket.WriteMsgUDPAddrPort(b, control, e.peer)
	if errors.Is(err, unix.ENOBUFS) {
		return nil
	}
	return err
}

// take notes one datagram that came. One that is too short is passed over.
func (e *quicEnd) take(b []byte) {
	if len(b) < quicAckSize {
		return
	}
	number := binary.LittleEndian.Uint64(b[1:])
	switch b[0] {
	case quicData:
		e.arrived++
		e.highest, e.replies = max(e.highest, number), true
	case quicAck:
		// A late one says less than those before it.
		if count := binary.LittleEndian.Uint64(b[9:]); count >= e.known && number <= e.sent {
			e.known, e.acked = count, max(e.acked, number)
			e.declared = number - min(count, number)
		}
	}
}

// acknowledge answers all the data that one system call brought.
func (e *quicEnd) acknowledge() error {
	if !e.replies {
		return nil
	}
	e.replies = false
	var b [quicAckSize]byte
	b[0] = quicAck
	binary.LittleEndian.PutUint64(b[1:], e.highest)
	binary.LittleEndian.PutUint64(b[9:], e.arrived)
	return e.send(b[:])
}

// segmentControl is the control message UDP_SEGMENT of udp(7).
func segmentControl() []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], quicSize)
	return b
}

// segmentSize is what UDP_GRO says about n bytes that were received: the size of each datagram but the last.
func segmentSize(control []byte, n int) (int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, fmt.Errorf("control messages of a datagram: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4 {
			if size := int(binary.NativeEndian.Uint32(m.Data)); size > 0 {
				return size, nil
			}
			return 0, errors.New("UDP_GRO: datagrams of no bytes")
		}
	}
	return max(n, 1), nil
}
