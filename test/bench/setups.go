package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/tun"
)

// setup is one thing to measure.
type setup struct {
	name string
	// start makes the network and waits until it carries packets.
	start func() (*network, error)
	// optional: the others are measured without it when it does not start.
	optional bool
}

// network is a setup that runs: a host in the namespace client reaches another, at address
// in the namespace server.
type network struct {
	client, server string
	address        string
	pinged         string // what answers a ping when the network is ready; empty: address does
	pid            int    // of the process that carries the packets; 0: the kernel does
	stop           func()
}

// benchNetwork is that of all setups but the lab's.
func benchNetwork(pid int, stop func()) *network {
	return &network{client: clientNamespace, server: serverNamespace, address: serverAddress, pid: pid, stop: stop}
}

const defaultSetups = "kernel,copy,nsgd-10,nsgd-1000,ovs"

func setupNames() []string {
	return []string{"kernel", "kernel-RULES", "forward", "interface-RULES", "routed-RULES", "copy", "vxlan", "ovs", "translation", "traces"}
}

// makeSetups reads -setups. What is not installed is left out, with a message.
func makeSetups(o *options) ([]setup, error) {
	var setups []setup
	for name := range strings.SplitSeq(o.setups, ",") {
		kind, number, numbered := strings.Cut(name, "-")
		count := fewRules
		if numbered {
			var err error
			if count, err = strconv.Atoi(number); err != nil || count < 1 || count > maxRules {
				return nil, fmt.Errorf("-setups: %s: %q rules: allowed are 1 to %d", name, number, maxRules)
			}
		}
		switch {
		case name == "vxlan":
			setups = append(setups, kernelFabric("kernel-vxlan", rules(count)), copyFabric())
			setups = append(setups, daemons(o, "nsgd-vxlan", rules(count), startBetweenHosts)...)
		case kind == "kernel":
			setups = append(setups, kernelRouter(name, rules(count)))
		case name == "forward":
			setups = append(setups, forwarding())
		case kind == "interface":
			setups = append(setups, daemons(o, name, rules(count), startBeforeInterfaces)...)
		case kind == "routed":
			setups = append(setups, daemons(o, name, rules(count), startBetweenRouters)...)
		case name == "translation":
			setups = append(setups, translations(o.nsgd[0])...)
		case name == "traces":
			setups = append(setups, traces(o.nsgd[0])...)
		case name == "copy":
			setups = append(setups, bareCopy())
		case kind == "nsgd":
			setups = append(setups, daemons(o, name, rules(count), startDaemon)...)
		case name == "ovs":
			if missing := missingOVS(); missing != "" {
				fmt.Printf("ovs: left out: %s is not installed\n", missing)
				continue
			}
			setups = append(setups, openVSwitch(rules(count)))
		default:
			return nil, fmt.Errorf("-setups: %q: allowed are %s and nsgd-RULES", name, strings.Join(setupNames(), ", "))
		}
	}
	if len(setups) == 0 {
		return nil, fmt.Errorf("-setups: %q: nothing is left to measure", o.setups)
	}
	return setups, nil
}

// fewRules is what a setup has that does not say how many.
const fewRules = 10

// privateWorld hides the machine's named namespaces and nsgd's state from this
// process, and gives it its own /proc.
func privateWorld() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run/netns", stateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
}

// stateDir is in memory and ends with this process: what is written there can't be left over.
const stateDir = "/run/nsgd"

// command runs a program and makes what it said part of the error.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// script runs commands in order, one a line.
func script(lines string) error {
	for line := range strings.Lines(lines) {
		if f := strings.Fields(line); len(f) > 0 {
			if err := command(f[0], f[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// background is a program that runs while its setup is measured.
type background struct {
	cmd   *exec.Cmd
	log   bytes.Buffer // whole when ended is closed
	ended chan struct{}
	err   error // why it ended; valid when ended is closed
}

func startBackground(name string, args ...string) (*background, error) {
	b := &background{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	if err := b.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		defer close(b.ended)
		b.err = b.cmd.Wait()
	}()
	return b, nil
}

// stop asks the program to end, and makes it after a while.
func (b *background) stop() {
	b.cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(5*time.Second, func() { b.cmd.Process.Kill() })
	defer kill.Stop()
	<-b.ended
}

// ready waits until the network answers or the program has ended; the error holds what it said.
func (b *background) ready(n *network) error {
	answered := make(chan error, 1)
	go func() { answered <- n.ready() }()
	select {
	case err := <-answered:
		if err == nil {
			return nil
		}
		n.stop()
		return fmt.Errorf("%w\n%s", err, b.log.Bytes())
	case <-b.ended:
		n.stop()
		return fmt.Errorf("%s: %v: %s", b.cmd.Path, b.err, bytes.TrimSpace(b.log.Bytes()))
	}
}

func (n *network) ready() error {
	return poll(10*time.Second, func() error {
		return command("ip", "netns", "exec", n.client, "ping", "-c", "1", "-W", "1", cmp.Or(n.pinged, n.address))
	})
}

// widen gives the client's namespace more ports than the usual ones, for many connections.
func (n *network) widen() error {
	return tun.Do(n.client, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("10000 65535"), 0)
	})
}

// poll repeats f until it succeeds or the deadline has passed.
func poll(deadline time.Duration, f func() error) error {
	end := time.Now().Add(deadline)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func removeNamespaces() {
	for _, namespace := range []string{clientNamespace, routerNamespace, serverNamespace} {
		exec.Command("ip", "netns", "del", namespace).Run()
	}
}

// direct is two hosts with nothing between them, which shows what the measuring itself can do.
func direct() setup {
	return setup{name: "a veth pair", start: func() (*network, error) {
		err := script(`
			ip netns add bench-a
			ip netns add bench-b
			ip link add eth0 netns bench-a type veth peer name eth0 netns bench-b
			ip -n bench-a addr add 10.0.1.4/16 dev eth0
			ip -n bench-b addr add 10.0.3.4/16 dev eth0
			ip -n bench-a link set eth0 up
			ip -n bench-b link set eth0 up
		`)
		return started(err, benchNetwork(0, removeNamespaces))
	}}
}

// started is what a start without a program of its own returns.
func started(err error, n *network) (*network, error) {
	if err == nil {
		err = n.ready()
	}
	if err != nil {
		n.stop()
		return nil, err
	}
	return n, nil
}

// kernelRouter is what a user would otherwise run: a Linux router with stateful
// nftables that holds the same policy, between two veth pairs.
func kernelRouter(name string, list []rule) setup {
	return setup{name: name, start: func() (*network, error) {
		err := makeForwardingRouter()
		if err == nil {
			err = filter(routerNamespace, list)
		}
		return started(err, benchNetwork(0, removeNamespaces))
	}}
}

// forwarding is the same router without a filter.
func forwarding() setup {
	return setup{name: "forward", start: func() (*network, error) {
		return started(makeForwardingRouter(), benchNetwork(0, removeNamespaces))
	}}
}

// makeForwardingRouter is makeRouter with a kernel that forwards.
func makeForwardingRouter() error {
	if err := makeRouter(); err != nil {
		return err
	}
	return command("ip", "netns", "exec", routerNamespace, "sysctl", "-qw", "net.ipv4.ip_forward=1")
}

// makeRouter connects both hosts with a namespace between them. Its kernel forwards nothing: what arrives was carried
// by somebody else.
func makeRouter() error {
	return script(`
		ip netns add bench-a
		ip netns add bench-r
		ip netns add bench-b
		ip link add eth0 netns bench-a type veth peer name left netns bench-r
		ip link add eth0 netns bench-b type veth peer name right netns bench-r
		ip -n bench-a addr add 10.0.1.4/24 dev eth0
		ip -n bench-b addr add 10.0.3.4/24 dev eth0
		ip -n bench-r addr add 10.0.1.1/24 dev left
		ip -n bench-r addr add 10.0.3.1/24 dev right
		ip -n bench-a link set eth0 up
		ip -n bench-b link set eth0 up
		ip -n bench-r link set dev left up
		ip -n bench-r link set dev right up
		ip -n bench-a route add default via 10.0.1.1
		ip -n bench-b route add default via 10.0.3.1
	`)
}

// bareCopy is this program's own copyCommand.
func bareCopy() setup {
	return setup{name: "copy", start: func() (*network, error) {
		b, err := startBackground("/proc/self/exe", copyCommand)
		if err != nil {
			return nil, err
		}
		n := benchNetwork(b.cmd.Process.Pid, b.stop)
		if err := b.ready(n); err != nil {
			return nil, err
		}
		return n, nil
	}}
}

// tempDir is a new folder that ends with this process.
func tempDir() (string, error) {
	return os.MkdirTemp(filepath.Clean(stateDir), "bench")
}
