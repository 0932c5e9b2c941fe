//go:build !linux

package probe

import (
	"context"
	"net"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// dial fails: only Linux has network namespaces.
func (p *Prober) dial(context.Context, *topology.Probe) (net.Conn, error) {
	return nil, tun.Do(p.options.Namespace, func() error { return nil })
}
