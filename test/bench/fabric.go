package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fabric"
)

// Two hosts with an underlay between them: the client is behind one, the server behind the other.
const (
	nearHost, farHost       = "bench-h1", "bench-h2"
	nearUnderlay            = "192.168.99.1"
	farUnderlay             = "192.168.99.2"
	fabricPort, fabricVNI   = 4790, 100
	underlayMTU, insideMTU  = 1500, underlayMTU - 36
	fabricCommand           = "copy-packets-between-hosts"
	fabricDevice, fabricTUN = "vx", "fabric0"
)

// makeHosts connects two hosts.
func makeHosts() error {
	return script(fmt.Sprintf(`
		ip netns add %[1]s
		ip netns add %[2]s
		ip -n %[1]s link set lo up
		ip link add ul netns %[1]s mtu %[5]d type veth peer name ul netns %[2]s mtu %[5]d
		ip -n %[1]s addr add %[3]s/24 dev ul
		ip -n %[2]s addr add %[4]s/24 dev ul
		ip -n %[1]s link set ul up
		ip -n %[2]s link set ul up
	`, nearHost, farHost, nearUnderlay, farUnderlay, underlayMTU))
}

func removeHosts() {
	removeNamespaces()
	for _, namespace := range []string{nearHost, farHost} {
		exec.Command("ip", "netns", "del", namespace).Run()
	}
}

// kernelFabric is what a user would otherwise run between hosts: routers with stateful nftables, which hold the same
// policy, and routes into the kernel's VXLAN.
func kernelFabric(name string, list []rule) setup {
	return setup{name: name, start: func() (*network, error) {
		err := makeHosts()
		for _, h := range []struct{ host, guest, address, gateway, far, underlay string }{
			{nearHost, clientNamespace, clientAddress, "10.0.1.1", serverAddress, farUnderlay},
			{farHost, serverNamespace, serverAddress, "10.0.3.1", clientAddress, nearUnderlay},
		} {
			if err == nil {
				err = script(fmt.Sprintf(`
					ip netns add %[2]s
					ip link add eth0 netns %[2]s mtu %[7]d type veth peer name guest netns %[1]s mtu %[7]d
					ip -n %[2]s addr add %[3]s/24 dev eth0
					ip -n %[1]s addr add %[4]s/24 dev guest
					ip -n %[2]s link set eth0 up
					ip -n %[1]s link set guest up
					ip -n %[2]s route add default via %[4]s
					ip -n %[1]s link add %[8]s mtu %[7]d type vxlan external gpe dstport %[9]d
					ip -n %[1]s link set %[8]s up
					ip -n %[1]s route add %[5]s encap ip id %[10]d dst %[6]s ttl 64 dev %[8]s
					ip netns exec %[1]s sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.%[8]s.rp_filter=0
				`, h.host, h.guest, h.address, h.gateway, h.far, h.underlay, insideMTU, fabricDevice, fabricPort, fabricVNI))
			}
			if err == nil {
				err = filter(h.host, list)
			}
		}
		return started(err, benchNetwork(0, removeHosts))
	}}
}

// filter loads rules of nftables in a namespace.
func filter(namespace string, list []rule) error {
	cmd := exec.Command("ip", "netns", "exec", namespace, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(nftables(list))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

// fabricEnd is one of the two hosts, and its guest.
type fabricEnd struct{ host, guest, address, far, underlay, other string }

// fabricEnds are both hosts, the near one first.
var fabricEnds = [...]fabricEnd{
	{nearHost, clientNamespace, clientAddress, serverAddress, nearUnderlay, farUnderlay},
	{farHost, serverNamespace, serverAddress, clientAddress, farUnderlay, nearUnderlay},
}

// copyFabric is this program's own fabricCommand, a process on each host as nsgd is.
func copyFabric() setup {
	return setup{name: "copy-vxlan", start: func() (*network, error) {
		if err := makeHosts(); err != nil {
			removeHosts()
			return nil, err
		}
		far, err := startBackground("/proc/self/exe", fabricCommand, farHost)
		if err != nil {
			removeHosts()
			return nil, err
		}
		near, err := startBackground("/proc/self/exe", fabricCommand, nearHost)
		if err != nil {
			far.stop()
			removeHosts()
			return nil, err
		}
		n := benchNetwork(near.cmd.Process.Pid, func() {
			near.stop()
			far.stop()
			removeHosts()
		})
		if err := near.ready(n); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, far.log.Bytes())
		}
		return n, nil
	}}
}

// copyBetweenHosts is copyPackets on one of two hosts with nsgd's fabric between them.
func copyBetweenHosts(host string) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	at := slices.IndexFunc(fabricEnds[:], func(e fabricEnd) bool { return e.host == host })
	if at < 0 {
		return fmt.Errorf("%s %q: allowed are %s and %s", fabricCommand, host, nearHost, farHost)
	}
	h, dir := fabricEnds[at], filepath.Join(stateDir, host)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	state, err := tun.OpenState(dir)
	if err != nil {
		return err
	}
	defer state.Close()
	workers := runtime.GOMAXPROCS(0)
	guest, _, err := tun.Open(tun.Config{
		Name: "eth0", Namespace: h.guest, CreateNamespace: true, State: state, Loopback: true, Queues: workers, MTU: insideMTU,
		Addresses: []netip.Prefix{netip.MustParsePrefix(h.address + "/24")},
		Routes:    []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
	})
	if err != nil {
		return err
	}
	defer guest.Close()
	between, _, err := tun.Open(tun.Config{Name: fabricTUN, Namespace: h.host, Queues: workers, MTU: insideMTU})
	if err != nil {
		return err
	}
	f, err := fabric.Open(h.host)
	if err != nil {
		return errors.Join(err, between.Close())
	}
	defer func() { err = errors.Join(err, between.Close(), f.Close()) }()
	far := netip.MustParsePrefix(h.far + "/32")
	if err := f.Apply(fabric.State{
		Underlay: netip.MustParseAddr(h.underlay), Port: fabricPort, Device: fabricDevice,
		Hosts: []fabric.Host{{Name: "other", Underlay: netip.MustParseAddr(h.other)}},
		Tunnels: []fabric.Tunnel{{VNI: fabricVNI, TUN: fabricTUN, MTU: insideMTU,
			Routes: []fabric.Route{{Prefix: far, Host: "other"}}, Sources: []fabric.Source{{Prefix: far, Host: "other"}}}},
	}); err != nil {
		return err
	}
	devices := []tun.Device{guest, between}
	if host == farHost {
		devices = []tun.Device{between, guest} // the server's is the second
	}
	return copyUntil(ctx, devices, workers)
}
