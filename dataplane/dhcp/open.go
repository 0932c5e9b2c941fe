package dhcp

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/mdlayher/packet"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ErrMissing: the interface is not there.
var ErrMissing = errors.New("no such interface")

// Open opens a packet socket at an interface and returns its descriptor, which the caller closes. It sees frames
// before tc and before a bridge take them, and only those of that interface. It needs CAP_NET_RAW there.
func Open(namespace, name string, gateway bool) (fd, mtu int, err error) {
	err = tun.Do(namespace, func() error {
		device, err := net.InterfaceByName(name)
		var fault syscall.Errno
		if err != nil && !errors.As(err, &fault) {
			return ErrMissing // the net package has no name for it
		}
		if err != nil {
			return err
		}
		filter, err := bpf.Assemble(append(received(), questions(gateway)...))
		if err != nil {
			return err
		}
		mtu = device.MTU
		const everyProtocol = 3 // ETH_P_ALL: a bridge's ports give no frame to sockets of one protocol
		conn, err := packet.Listen(device, packet.Raw, everyProtocol, &packet.Config{Filter: filter})
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var failed error
		err = raw.Control(func(of uintptr) {
			// Whoever holds the descriptor sees no other frames.
			if failed = unix.SetsockoptInt(int(of), unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); failed == nil {
				fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
			}
		})
		return errors.Join(err, failed)
	})
	if err != nil {
		return -1, 0, err
	}
	return fd, mtu, nil
}

// conn is an interface's packet socket: each Read and Write is a frame.
type conn interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// openInterface opens what the options say.
func openInterface(o Options) (conn, int, error) {
	fd, mtu, err := o.Open()
	if err != nil {
		return nil, 0, err
	}
	return os.NewFile(uintptr(fd), o.Interface), mtu, nil
}

// received passes what the machine sends, without a VLAN tag, to the filter behind it.
func received() []bpf.Instruction {
	const outgoing = 4 // PACKET_OUTGOING
	return slices.Concat(
		[]bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtType}}, require(bpf.JumpNotEqual, outgoing),
		[]bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}}, require(bpf.JumpEqual, 0))
}

// questions passes DHCP of both families and, for a gateway, ARP and solicitations of routers and neighbours. The
// kernel drops all else, so that a machine's other traffic costs no system call.
func questions(gateway bool) []bpf.Instruction {
	load := func(offset, size uint32) []bpf.Instruction {
		return []bpf.Instruction{bpf.LoadAbsolute{Off: offset, Size: int(size)}}
	}
	pass := []bpf.Instruction{bpf.RetConstant{Val: maxFrame}}
	onlyGateway := pass
	if !gateway {
		onlyGateway = []bpf.Instruction{bpf.RetConstant{Val: 0}}
	}
	const flagsOrFragment, solicitRouter, solicitNeighbour = 0x3fff, 133, 135
	ipv4 := slices.Concat(
		load(23, 1), require(bpf.JumpEqual, uint32(layers.IPProtocolUDP)),
		load(20, 2), require(bpf.JumpBitsNotSet, flagsOrFragment),
		[]bpf.Instruction{bpf.LoadMemShift{Off: 14}, bpf.LoadIndirect{Off: 16, Size: 2}}, require(bpf.JumpEqual, dhcpv4.ServerPort), pass)
	udp6 := slices.Concat(load(56, 2), require(bpf.JumpEqual, dhcpv6.DefaultServerPort), pass)
	ipv6 := slices.Concat(
		load(20, 1), when(uint32(layers.IPProtocolUDP), udp6), require(bpf.JumpEqual, uint32(layers.IPProtocolICMPv6)),
		load(54, 1), when(solicitRouter, onlyGateway), require(bpf.JumpEqual, solicitNeighbour), onlyGateway)
	return slices.Concat(load(12, 2), when(uint32(layers.EthernetTypeARP), onlyGateway),
		when(uint32(layers.EthernetTypeIPv4), ipv4), require(bpf.JumpEqual, uint32(layers.EthernetTypeIPv6)), ipv6)
}

// require drops the frame unless the loaded value is as asked for.
func require(condition bpf.JumpTest, value uint32) []bpf.Instruction {
	return []bpf.Instruction{bpf.JumpIf{Cond: condition, Val: value, SkipTrue: 1}, bpf.RetConstant{Val: 0}}
}

// when runs body, which ends the filter, for one loaded value.
func when(value uint32, body []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: uint8(len(body))}}, body...)
}
