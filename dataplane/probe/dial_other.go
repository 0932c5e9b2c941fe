//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// dial fails: only Linux has network namespaces.
func (p *Prober) dial(context.Context, *topology.Probe) (net.Conn, error) {
	_, _, err := p.options.Socket(netip.Addr{})
	return nil, err
}

// Socket fails as dial does.
func Socket(namespace, _ string, _ netip.Addr) (fd, zone int, err error) {
	return -1, 0, tun.Do(namespace, func() error { return nil })
}
