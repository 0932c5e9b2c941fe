package serve

import (
	"context"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// Socket is the connection of a request's context; nil: the request is of no Server.
func Socket(ctx context.Context) net.Conn {
	if k, ok := ctx.Value(connectionKey{}).(*connection); ok {
		return socketOf(k.conn)
	}
	return nil
}

// PeerUID is the user who connected to a unix socket.
func PeerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	if failed := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); failed != nil {
		return 0, failed
	}
	if err != nil {
		return 0, err
	}
	return peer.Uid, nil
}

// peerOf is what the connections of one peer have in common: the user of a unix socket, the address, or the /64 prefix
// of an IPv6 one.
func peerOf(c net.Conn) string {
	if local, ok := c.(*net.UnixConn); ok {
		if uid, err := PeerUID(local); err == nil {
			return "user " + strconv.FormatUint(uint64(uid), 10)
		}
		return ""
	}
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	p := tcp.AddrPort().Addr().Unmap().WithZone("")
	if p.Is6() {
		if prefix, err := p.Prefix(64); err == nil {
			return prefix.String()
		}
	}
	return p.String()
}
