//go:build !linux

package probe

import (
	"context"
	"net"
	"net/netip"

	"github.com/nsgd/nsgd/tun"
)

// dial fails: only Linux has network namespaces.
func (p *Prober) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	return nil, tun.Do(p.options.Namespace, func() error { return nil })
}
