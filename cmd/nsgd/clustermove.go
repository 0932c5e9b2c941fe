//go:build !nocluster

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/transfer"
)

// departing is a network interface that leaves this host.
type departing struct {
	*transfer.Departure
	nic string
}

// Write implements cluster.Departing.
func (d departing) Write(w io.Writer) (int, error) { return d.Departure.Write(w, d.nic) }

// Depart implements cluster.Daemon.
func (m *member) Depart(u *generation.Unpacked, nics []string, nic string, hand func(cluster.Departing) error) error {
	var d *transfer.Departure
	return m.with(u, func() error {
		_, err := m.service.Reload(inspect.ReloadRequest{
			Cause: fmt.Sprintf("cluster: %s goes to another host", nic),
			Edit:  inspect.Edit{Generation: u.Folder, NetworkInterfaces: append([]string{}, nics...)},
			Handover: &inspect.Handover{
				Ready: func() (err error) {
					if d, err = transfer.Depart(m.engine, nic, m.host); err != nil {
						return err
					}
					if err = hand(departing{d, nic}); err != nil {
						d.Thaw()
					}
					return err
				},
				Flows: func(next *topology.Snapshot) { d.Remain(next) },
			},
		})
		return err
	})
}

// arriving is a network interface that comes to this host.
type arriving struct {
	engine    *dataplane.Engine
	nic, from string
	flows     *transfer.Transfer // nil: none were read
}

// Read implements cluster.Arriving.
func (a *arriving) Read(r io.Reader) (err error) {
	a.flows, err = transfer.Read(r, a.nic, a.from, a.engine.Flows().MaxPerZone())
	return err
}

// Arrive implements cluster.Daemon.
func (m *member) Arrive(u *generation.Unpacked, nics []string, nic, from string, take func(cluster.Arriving) error) (came cluster.Arrived, err error) {
	a := &arriving{engine: m.engine, nic: nic, from: from}
	var carried time.Time
	err = m.with(u, func() error {
		_, err := m.service.Reload(inspect.ReloadRequest{
			Cause: fmt.Sprintf("cluster: %s comes from %s", nic, from),
			Edit:  inspect.Edit{Generation: u.Folder, NetworkInterfaces: append([]string{}, nics...)},
			Handover: &inspect.Handover{
				Ready: func() error { return take(a) },
				Flows: func(next *topology.Snapshot) {
					if a.flows == nil {
						return
					}
					got, err := a.flows.Arrive(m.engine, next)
					if err != nil {
						m.log.Error("cluster: the flows of a network interface are lost", "networkInterface", nic, "error", err)
					}
					came = cluster.Arrived{Flows: got.Flows, Joined: got.Joined, Lost: got.Lost}
				},
				Carried: func() { carried = time.Now() },
			},
		})
		return err
	})
	if err == nil {
		came.Carried = time.Since(carried)
	}
	return came, err
}

// listen waits for hosts that hand over a network interface: at the port of the tunnels, by TCP.
func (k *ClusterConfig) listen(ctx context.Context) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, "tcp", netip.AddrPortFrom(k.Underlay.Addr, uint16(k.Port)).String())
}

// dial connects to a host that waits so, from this host's underlay.
func (k *ClusterConfig) dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: slices.Clone(k.Underlay.AsSlice())}}
	return d.DialContext(ctx, "tcp", address)
}
