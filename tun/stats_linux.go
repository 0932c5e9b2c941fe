package tun

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// statsSocket asks the kernel for the counters of interfaces in the namespace where it was
// opened. It uses RTM_GETSTATS (kernel 4.7), which answers with counters alone: RTM_GETLINK
// describes the whole interface, and a scrape may ask for thousands.
type statsSocket struct {
	fd       int
	sequence uint32
	buffer   [1024]byte // an answer has some 250 bytes
}

const (
	ifStatsMsgLen = 12 // struct if_stats_msg: family and padding, ifindex, filter_mask
	statsLinkMask = 1 << (unix.IFLA_STATS_LINK_64 - 1)
	statsLinkLen  = 8 * 8 // as much of struct rtnl_link_stats64 as Stats has
)

// openStats runs on a thread inside the namespace.
func openStats() (*statsSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	// A socket that is connected to the kernel gets no other messages.
	if err := unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return &statsSocket{fd: fd}, nil
}

func (s *statsSocket) close() error { return unix.Close(s.fd) }

// read returns the counters of the interface with that index. It never waits: the kernel has
// answered when the request returns.
func (s *statsSocket) read(index int) (Stats, bool) {
	if err := s.ask(index); err != nil {
		return Stats{}, false
	}
	for {
		n, err := unix.Read(s.fd, s.buffer[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < unix.NLMSG_HDRLEN {
			return Stats{}, false
		}
		// The answer may be one that an earlier read has left.
		if answer := s.buffer[:n]; binary.NativeEndian.Uint32(answer[8:]) == s.sequence {
			return parseStats(answer)
		}
	}
}

// ask sends the next request.
func (s *statsSocket) ask(index int) error {
	s.sequence++
	request := s.buffer[:unix.NLMSG_HDRLEN+ifStatsMsgLen]
	clear(request)
	order := binary.NativeEndian
	order.PutUint32(request[0:], uint32(len(request)))
	order.PutUint16(request[4:], unix.RTM_GETSTATS)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST)
	order.PutUint32(request[8:], s.sequence)
	order.PutUint32(request[unix.NLMSG_HDRLEN+4:], uint32(index))
	order.PutUint32(request[unix.NLMSG_HDRLEN+8:], statsLinkMask)
	_, err := unix.Write(s.fd, request)
	return err
}

// parseStats finds the counters in an RTM_NEWSTATS message. An error message has none.
func parseStats(message []byte) (Stats, bool) {
	order := binary.NativeEndian
	if len(message) < unix.NLMSG_HDRLEN+ifStatsMsgLen || order.Uint16(message[4:]) != unix.RTM_NEWSTATS {
		return Stats{}, false
	}
	for b := message[unix.NLMSG_HDRLEN+ifStatsMsgLen:]; len(b) >= unix.SizeofRtAttr; {
		length, kind := int(order.Uint16(b)), order.Uint16(b[2:])
		if length < unix.SizeofRtAttr || length > len(b) {
			return Stats{}, false
		}
		if value := b[unix.SizeofRtAttr:length]; kind == unix.IFLA_STATS_LINK_64 && len(value) >= statsLinkLen {
			at := func(field int) uint64 { return order.Uint64(value[8*field:]) }
			return Stats{
				RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
				RxErrors: at(4), TxErrors: at(5), RxDropped: at(6), TxDropped: at(7),
			}, true
		}
		b = b[min(len(b), (length+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1)):]
	}
	return Stats{}, false
}
