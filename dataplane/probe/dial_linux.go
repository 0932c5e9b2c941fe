package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// dial opens a connection from the platform's address.
func (p *Prober) dial(ctx context.Context, t *topology.Probe) (net.Conn, error) {
	fd, err := p.begin(t)
	// A port that was chosen here may be taken, or wait for the end of an earlier probe's connection.
	for tries := 16; tries > 1 && t.Shares > 1 && (errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)); tries-- {
		fd, err = p.begin(t)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "health probe")
	defer file.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := file.SetWriteDeadline(deadline); err != nil {
			return nil, err
		}
	}
	defer context.AfterFunc(ctx, func() { file.SetWriteDeadline(time.Unix(1, 0)) })()
	if err := awaitConnect(file); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}

// Socket makes a socket for a probe and returns its descriptor, which the caller closes. It stays in the namespace
// where it was made. device is the platform's there: its index is the zone of link-local sources, 0 for others.
func Socket(namespace, device string, source netip.Addr) (fd, zone int, err error) {
	family := unix.AF_INET
	if source.Is6() {
		family = unix.AF_INET6
	}
	err = tun.Do(namespace, func() error {
		if source.IsLinkLocalUnicast() {
			link, err := net.InterfaceByName(device)
			if err != nil {
				return fmt.Errorf("device %s: %w", device, err)
			}
			zone = link.Index
		}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return -1, 0, err
	}
	return fd, zone, nil
}

// begin begins to connect a socket. Several links may have a link-local address, so that the socket needs the
// device's index.
func (p *Prober) begin(t *topology.Probe) (fd int, err error) {
	source := p.options.Source(t.Address)
	fd, zone, err := p.options.Socket(source)
	if err != nil {
		return -1, err
	}
	if err := beginConnect(fd, source, zone, t); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func beginConnect(fd int, from netip.Addr, zone int, t *topology.Probe) error {
	option, port := unix.IP_BIND_ADDRESS_NO_PORT, 0
	level := unix.IPPROTO_IP
	if t.Shares > 1 {
		option, port, level = unix.SO_REUSEADDR, sharedPort(t), unix.SOL_SOCKET
	}
	// Thousands of probes share ports: the kernel chooses one with the destination, or is told
	// that other sockets may have it.
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, socketAddress(from, port, zone)); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	err := unix.Connect(fd, socketAddress(t.Address, int(t.Port), 0))
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return os.NewSyscallError("connect", err)
}

// socketAddress is an address as the kernel takes it. zone is the device of a link-local one.
func socketAddress(a netip.Addr, port, zone int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port, ZoneId: uint32(zone)}
}

// sharedPort is a port by which the engine knows which of several virtual networks is meant.
func sharedPort(t *topology.Probe) int {
	const first, ports = 16384, 32768
	port := first + rand.IntN(ports)
	return port - port%t.Shares + t.Share
}

// awaitConnect waits until the connection is open or has failed.
func awaitConnect(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) (done bool) {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			failed = os.NewSyscallError("getsockopt", err)
		case code != 0:
			failed = os.NewSyscallError("connect", unix.Errno(code))
		default:
			_, err = unix.Getpeername(int(fd))
			return err == nil // otherwise not open yet
		}
		return true
	})
	return errors.Join(err, failed)
}
