package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// port is where a host's packets go in and come out: a packet socket on its interface,
// below everything that its kernel would do with them.
type port struct {
	fd      int
	ifindex int
	mac     net.HardwareAddr // of the router; nil on a TUN
}

// arrival is a packet that came out.
type arrival struct {
	host  int
	bytes []byte
}

// lane is one of the two ways from host to host: the kernel's router or nsgd.
type lane struct {
	name     string
	ports    [figureHosts]port
	stalled  bool // this exchange's marker has not come yet
	arrivals []arrival
}

// newLane opens the packet sockets of the hosts.
func newLane(t *testing.T, name string, place func(host int) (namespace, device string), mac func(host int) net.HardwareAddr) *lane {
	t.Helper()
	l := &lane{name: name}
	for i := range l.ports {
		namespace, device := place(i)
		p := &l.ports[i]
		err := tun.Do(namespace, func() error { return p.open(device) })
		if err != nil {
			t.Fatalf("%s: packet socket on %s in %s: %v", name, device, namespace, err)
		}
		t.Cleanup(func() { unix.Close(p.fd) })
		if mac != nil {
			p.mac = mac(i)
		}
	}
	return l
}

func (p *port) open(device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	p.ifindex = link.Attrs().Index
	// Datagram sockets have no link header, so TUN and Ethernet are the same to them.
	p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20),
		unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: p.ifindex}))
}

func (p *port) send(b []byte) error {
	to := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: p.ifindex}
	if b[0]>>4 == 6 {
		to.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	to.Halen = uint8(copy(to.Addr[:], p.mac))
	return unix.Sendto(p.fd, b, 0, to)
}

// receive returns nil when nothing is waiting.
func (p *port) receive(buf []byte) ([]byte, error) {
	n, _, err := unix.Recvfrom(p.fd, buf, unix.MSG_TRUNC)
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, nil
	case err != nil:
		return nil, err
	case n > len(buf):
		return nil, fmt.Errorf("a packet of %d bytes", n)
	}
	return append([]byte{}, buf[:n]...), nil
}

func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// wire is both lanes side by side. Its methods are for one thread, the one that made it.
type wire struct {
	kernel, nsgd *lane
	sequence     uint32 // of the last marker
	buf          []byte
}

// newWire pins the calling goroutine's thread to one CPU: a packet waits in the queue of
// the CPU that sent it, and two queues would let a marker overtake the packet before it.
// The goroutine stays locked, so the thread ends with it.
func newWire(t *testing.T, kernel, nsgd *lane) *wire {
	t.Helper()
	runtime.LockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if allowed.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return &wire{kernel: kernel, nsgd: nsgd, buf: make([]byte, 1<<16)}
}

// markerPatience is how long a marker may take before it counts as lost and is sent again.
const markerPatience = time.Second

// exchange puts the frames into both lanes at a host and returns what came out of each
// at any host. Behind them goes a marker, a datagram from one host to another that every
// groupRules lets pass; both lanes keep the order, nsgd of what it gathers too, so what has not come out
// before the marker never will.
func (w *wire) exchange(at int, frames [][]byte, m marker) (kernel, nsgd []arrival, err error) {
	lanes := [2]*lane{w.kernel, w.nsgd}
	for _, l := range lanes {
		l.arrivals, l.stalled = nil, true
		for _, b := range frames {
			if err := l.ports[at].send(b); err != nil {
				return nil, nil, fmt.Errorf("%s: send: %w", l.name, err)
			}
		}
	}
	w.sequence++
	first := w.sequence
	for deadline := time.Now().Add(patience); lanes[0].stalled || lanes[1].stalled; w.sequence++ {
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("the marker from host %d to host %d has not come out of every lane (kernel: %t, nsgd: %t) for %v",
				m.from, m.to, !w.kernel.stalled, !w.nsgd.stalled, patience)
		}
		for _, l := range lanes {
			if l.stalled {
				if err := l.ports[m.from].send(m.bytes(w.sequence)); err != nil {
					return nil, nil, fmt.Errorf("%s: send marker: %w", l.name, err)
				}
			}
		}
		if err := w.await(first, m.to); err != nil {
			return nil, nil, err
		}
	}
	return w.kernel.arrivals, w.nsgd.arrivals, nil
}

// await reads until a marker of this exchange has come out of both lanes.
func (w *wire) await(first uint32, to int) error {
	end := time.Now().Add(markerPatience)
	for w.kernel.stalled || w.nsgd.stalled {
		var fds []unix.PollFd
		for _, l := range []*lane{w.kernel, w.nsgd} {
			if l.stalled {
				fds = append(fds, unix.PollFd{Fd: int32(l.ports[to].fd), Events: unix.POLLIN})
			}
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, l := range []*lane{w.kernel, w.nsgd} {
			if l.stalled {
				if err := w.drain(l, first, to); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// drain reads a lane's marker host first, then, once the marker is there, the others,
// where whatever was misdirected has arrived before it.
func (w *wire) drain(l *lane, first uint32, to int) error {
	if err := w.read(l, first, to); err != nil || l.stalled {
		return err
	}
	for host := range l.ports {
		if host != to {
			if err := w.read(l, first, host); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wire) read(l *lane, first uint32, host int) error {
	for {
		b, err := l.ports[host].receive(w.buf)
		if b == nil || err != nil {
			return err
		}
		if sequence, ok := markerSequence(b); !ok {
			l.arrivals = append(l.arrivals, arrival{host, b})
		} else if sequence >= first {
			l.stalled = false
		}
	}
}

// marker goes from host to host between two addresses that are theirs.
type marker struct {
	from, to int
	spec     packettest.Spec
}

func (m marker) bytes(sequence uint32) []byte {
	s := m.spec
	s.SrcPort, s.DstPort, s.Payload = markerPort, markerPort, 4
	b := packettest.UDP(s)
	// With a right checksum a marker is gathered as what it follows may be, and waits
	// behind it: the payload was zeros, whose sum is 0.
	sum := uint32(^binary.BigEndian.Uint16(b[26:])) + sequence>>16 + sequence&0xffff
	sum = sum>>16 + sum&0xffff
	sum = 0xffff ^ (sum>>16 + sum&0xffff)
	if sum == 0 { // would say that there is none (RFC 768)
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[26:], uint16(sum))
	binary.BigEndian.PutUint32(b[len(b)-4:], sequence)
	return b
}

// markerSequence recognises markers, which are IPv4 without options.
func markerSequence(b []byte) (uint32, bool) {
	if len(b) != 32 || b[0] != 0x45 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[22:]) != markerPort {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[28:]), true
}
