package intercept

import (
	"errors"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// linkChange is a message of the kernel about an interface.
type linkChange struct {
	netlink.Link
	gone  bool
	moved bool // gone to another network namespace
}

// followLinks reads the messages of the present network namespace until done is closed or one was lost. The channel
// is closed then, and failed has the reason.
func followLinks(done <-chan struct{}) (changes <-chan linkChange, failed <-chan error, err error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, nil, err
	}
	out, why := make(chan linkChange, 256), make(chan error, 1)
	go func() {
		<-done
		s.Close()
	}()
	go func() {
		defer close(out)
		for {
			messages, from, err := s.Receive()
			if err != nil {
				why <- err
				return
			}
			if from.Pid != nl.PidKernel {
				continue
			}
			for _, m := range messages {
				c, err := parseLink(unix.NlMsghdr(m.Header), m.Data)
				if err != nil {
					continue
				}
				select {
				case out <- c:
				case <-done:
					return
				}
			}
		}
	}()
	return out, why, nil
}

var errOtherMessage = errors.New("not about an interface")

func parseLink(h unix.NlMsghdr, data []byte) (c linkChange, err error) {
	if h.Type != unix.RTM_NEWLINK && h.Type != unix.RTM_DELLINK || len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC { // a bridge tells of its ports
		return c, errOtherMessage
	}
	c.gone = h.Type == unix.RTM_DELLINK
	if c.Link, err = netlink.LinkDeserialize(&h, data); err != nil {
		return c, err
	}
	attributes, err := nl.ParseRouteAttr(data[unix.SizeofIfInfomsg:])
	c.moved = c.gone && slices.ContainsFunc(attributes, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == unix.IFLA_NEW_NETNSID })
	return c, err
}
