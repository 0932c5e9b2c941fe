// Command hosts runs the lab on three hosts: network namespaces with an underlay between them, an nsgd in each, and a
// real etcd that holds the policy. It prints the same table as the lab on one host, and stays up until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
)

func main() {
	binaries := flag.String("binaries", "bin", "the folder of nsgd and nsgctl")
	etcd := flag.String("etcd", "etcd", "the etcd server")
	once := flag.Bool("once", false, "end after the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binaries, *etcd, *once); err != nil {
		fmt.Fprintln(os.Stderr, "hosts:", err)
		os.Exit(1)
	}
}

// patience bounds how long the hosts may take until all of them carry the policy.
const patience = 5 * time.Minute

func run(ctx context.Context, binaries, etcd string, once bool) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &cluster{binaries: binaries, etcd: etcd, fail: cancel}
	if c.dir, err = os.MkdirTemp("", "nsgd-hosts-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.down()) }()
	if err := c.up(ctx); err != nil {
		return err
	}
	set, err := inspect.NewPolicyFiles("", filepath.Join(c.dir, "policy")).Load()
	if err != nil {
		return err
	}
	snapshot, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		return err
	}
	stopServers, err := lab.Serve(ctx, lab.AllHosts(), lab.Options{})
	if err != nil {
		return err
	}
	defer stopServers()
	results, mismatch := lab.Run(ctx, lab.AllHosts(), lab.Options{Explain: lab.ExplainBy(snapshot)})
	if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if mismatch != nil && !errors.Is(mismatch, lab.ErrMismatch) {
		return mismatch
	}
	if err := lab.Table(os.Stdout, results); err != nil {
		return err
	}
	if once && ctx.Err() == nil {
		return mismatch
	}
	if ctx.Err() == nil {
		c.hints()
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return errors.Join(mismatch, cause)
	}
	return mismatch
}

// host is a host of the lab, and what is attached to it.
type host struct {
	name, address string
	attachments   []string
}

// nics counts the network interfaces among the attachments.
func (h *host) nics() (n int) {
	for _, a := range h.attachments {
		if strings.HasPrefix(a, "{networkInterface") {
			n++
		}
	}
	return n
}

const (
	prefix   = "nsgd-host-" // of namespaces
	underlay = prefix + "underlay"
	store    = "192.168.99.254" // etcd's address, in the underlay
)

var hosts = []host{
	{"h1", "192.168.99.1", []string{nic("vm1")}},
	{"h2", "192.168.99.2", []string{nic("vm2"), nic("vm3")}},
	{"h3", "192.168.99.3", []string{nic("vm4"),
		`{internet: true, netns: nsgd-internet, create: true, device: eth0, addresses: [203.0.113.10/24, "2001:db8::10/64"]}`}},
}

func nic(vm string) string {
	return fmt.Sprintf("{networkInterface: %s-nic, netns: nsgd-%s, create: true, device: eth0, mtu: 1450}", vm, vm)
}

// cluster is what the lab has made.
type cluster struct {
	dir, binaries, etcd string
	processes           []*process
	namespaces          []string
	fail                context.CancelCauseFunc // ends the lab when one of its processes has
}

// up makes the underlay, starts etcd and the daemons, and applies the policy.
func (c *cluster) up(ctx context.Context) error {
	if err := os.CopyFS(c.dir, lab.Files()); err != nil {
		return err
	}
	if err := c.network(); err != nil {
		return err
	}
	client := "http://" + store + ":2379"
	if err := c.start(underlay, c.etcd, "--data-dir", filepath.Join(c.dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap", "--log-level", "error"); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := os.Mkdir(filepath.Join(c.dir, h.name), 0o700); err != nil { // one of each nsgd: it is its state directory
			return err
		}
		if err := os.WriteFile(filepath.Join(c.dir, h.name+".yaml"), []byte(c.config(&h, client)), 0o600); err != nil {
			return err
		}
	}
	if err := c.nsgctl(ctx, "cluster", "apply", "--endpoints", client, "--message", "the lab", filepath.Join(c.dir, "policy")); err != nil {
		return err
	}
	for _, h := range hosts {
		if err := c.start(prefix+h.name, filepath.Join(c.binaries, "nsgd"), "run", "--config", filepath.Join(c.dir, h.name+".yaml")); err != nil {
			return err
		}
	}
	return c.await(ctx)
}

func (c *cluster) config(h *host, client string) string {
	return fmt.Sprintf(`cluster: {endpoints: [%q], host: %s, underlay: %s, cache: %s}
attachments:
- %s
metrics: {listen: "off"}
control: {socket: %s}
`, client, h.name, h.address, filepath.Join(c.dir, h.name, "cache"), strings.Join(h.attachments, "\n- "), c.socket(h))
}

func (c *cluster) socket(h *host) string { return filepath.Join(c.dir, h.name, "nsgd.sock") }

// await waits until every host has its fabric and its network interfaces.
func (c *cluster) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		missing := slices.DeleteFunc(slices.Clone(hosts), func(h host) bool { return c.ready(ctx, &h) })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not carry the policy: %w", missing[0].name, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready reports that a host has its network interfaces, and what leads to the others.
func (c *cluster) ready(ctx context.Context, h *host) bool {
	client := control.NewClient(c.socket(h))
	defer client.Close()
	status, err := client.Status(ctx)
	if err != nil {
		return false
	}
	own, fabrics := 0, 0
	for _, a := range status.Attachments {
		if a.Kind == topology.Fabric.String() {
			fabrics++
		} else {
			own++
		}
	}
	others := 0
	for _, other := range hosts {
		if other.name != h.name {
			others += other.nics()
		}
	}
	return own == len(h.attachments) && fabrics == 2 && status.Cluster != nil && status.Cluster.Reaches == others
}

// network makes a namespace for each host, and a bridge between them.
func (c *cluster) network() error {
	if err := c.namespace(underlay); err != nil {
		return err
	}
	commands := []string{
		"-n " + underlay + " link add br0 type bridge",
		"-n " + underlay + " addr add " + store + "/24 dev br0",
		"-n " + underlay + " link set br0 up",
	}
	for _, h := range hosts {
		if err := c.namespace(prefix + h.name); err != nil {
			return err
		}
		n := prefix + h.name
		commands = append(commands,
			fmt.Sprintf("-n %s link add eth0 type veth peer name %s netns %s", n, h.name, underlay),
			fmt.Sprintf("-n %s link set %s master br0 up", underlay, h.name),
			fmt.Sprintf("-n %s addr add %s/24 dev eth0", n, h.address),
			fmt.Sprintf("-n %s link set eth0 up", n))
	}
	for _, command := range commands {
		if err := ip(strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// namespace makes a namespace. One that a killed run has left goes first.
func (c *cluster) namespace(name string) error {
	ip("netns", "del", name) // there may be none
	if err := ip("netns", "add", name); err != nil {
		return err
	}
	c.namespaces = append(c.namespaces, name)
	return ip("-n", name, "link", "set", "lo", "up")
}

func ip(arguments ...string) error {
	if out, err := exec.Command("ip", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// start starts a program in a network namespace. The namespaces that it makes are to be seen from here, so that it
// keeps this process's mounts.
func (c *cluster) start(namespace string, program ...string) error {
	p := exec.Command("nsenter", append([]string{"--net=/run/netns/" + namespace}, program...)...)
	p.Stdout, p.Stderr = os.Stderr, os.Stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for this process, which ends the others in order
	if err := p.Start(); err != nil {
		return err
	}
	one := &process{Cmd: p, ended: make(chan struct{})}
	c.processes = append(c.processes, one)
	go func() {
		one.err = p.Wait()
		close(one.ended)
		c.fail(fmt.Errorf("%s has ended: %v", strings.Join(program, " "), p.ProcessState)) // nothing, once the lab ends
	}()
	return nil
}

// process is a program of the lab.
type process struct {
	*exec.Cmd
	ended chan struct{} // closed when it has
	err   error         // why; from then on
}

func (c *cluster) nsgctl(ctx context.Context, arguments ...string) error {
	p := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", underlay, filepath.Join(c.binaries, "nsgctl")}, arguments...)...)
	out, err := p.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nsgctl %s: %w: %s", strings.Join(arguments, " "), err, out)
	}
	return nil
}

// down ends the daemons, then etcd, and removes what the lab has made.
func (c *cluster) down() error {
	var errs []error
	for _, p := range slices.Backward(c.processes) {
		p.Process.Signal(syscall.SIGTERM)
		<-p.ended
		if p.err != nil && p.ProcessState.ExitCode() > 0 {
			errs = append(errs, fmt.Errorf("%s: %w", strings.Join(p.Args, " "), p.err))
		}
	}
	for _, name := range c.namespaces {
		errs = append(errs, ip("netns", "del", name))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

func (c *cluster) hints() {
	nsgctl := filepath.Join(c.binaries, "nsgctl")
	fmt.Printf("\nThe lab stays up until Ctrl-C. To try more, as root in another terminal:\n")
	for _, command := range []string{
		fmt.Sprintf("ip netns exec %s %s cluster status --endpoints http://%s:2379", underlay, nsgctl, store),
		nsgctl + " flows --socket " + c.socket(&hosts[2]),
		"ip netns exec nsgd-internet curl http://10.0.1.4/",
		"ip netns exec nsgd-vm1 ping -c 3 10.0.2.4",
	} {
		fmt.Println(" ", command)
	}
}
