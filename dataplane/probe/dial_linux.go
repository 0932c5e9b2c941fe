package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// dial opens a connection from the platform's address. A socket stays in the namespace where it
// was made, so only making it takes a thread there, not the wait for an answer.
func (p *Prober) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	var fd int
	err := tun.Do(p.options.Namespace, func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	if err := beginConnect(fd, p.options.Source, to); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
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

func beginConnect(fd int, from netip.Addr, to netip.AddrPort) error {
	if !from.Is4() || !to.Addr().Is4() {
		return fmt.Errorf("from %s to %s: only IPv4 is probed", from, to.Addr())
	}
	// The kernel then chooses the port with the destination: thousands of probes share ports.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return os.NewSyscallError("connect", err)
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
