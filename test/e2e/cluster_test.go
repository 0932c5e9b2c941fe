package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// fleet is a cluster: an etcd, and hosts that are daemons of this world, each in a network namespace of its own.
type fleet struct {
	t         *testing.T
	hosts     []string // in the order of their addresses
	dir       string
	client    string
	prefix    string   // of keys; empty: the usual one
	tls       []string // flags of nsgctl cluster that say who asks
	arguments []string
	etcd      *exec.Cmd
}

// startFleet starts etcd. The test is skipped where there is none.
func startFleet(t *testing.T) *fleet {
	t.Helper()
	return startFleetWith(t, func(*fleet) {})
}

// startFleetWith is startFleet with more arguments of etcd, or another client.
func startFleetWith(t *testing.T, more func(*fleet)) *fleet {
	t.Helper()
	needWorld(t)
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not there: apt install etcd-server")
	}
	// Without an address of its own a bridge takes the lowest one of its ports, also while it is in use: hosts that have
	// learned another one don't reach etcd then, for half a minute or so.
	must(t, "ip", "link", "add", "underlay", "address", "02:00:00:00:00:fe", "type", "bridge")
	must(t, "ip", "addr", "add", fleetAddress+"/24", "dev", "underlay")
	must(t, "ip", "link", "set", "underlay", "up")
	t.Cleanup(func() { exec.Command("ip", "link", "del", "underlay").Run() })
	f := &fleet{t: t, dir: t.TempDir(), client: freeEtcdURL(t)}
	t.Cleanup(f.leave)
	peer := freeEtcdURL(t)
	f.arguments = []string{"--data-dir", filepath.Join(f.dir, "etcd"), "--listen-client-urls", f.client, "--advertise-client-urls", f.client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer, "--log-level", "error", "--unsafe-no-fsync"} // whose disk is slow has slow leases; no test cuts the power
	more(f)
	f.startEtcd()
	t.Cleanup(f.killEtcd)
	return f
}

// fleetAddress is etcd's, in the underlay.
const fleetAddress = "192.0.2.254"

func freeEtcdURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", fleetAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func (f *fleet) startEtcd() {
	f.t.Helper()
	f.etcd = exec.Command("etcd", f.arguments...)
	if err := f.etcd.Start(); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "etcd answers", func() bool { return execute(f.t, "nsgctl", f.asked("history")...).code == 0 })
}

func (f *fleet) killEtcd() {
	if f.etcd != nil {
		f.etcd.Process.Kill()
		f.etcd.Wait()
		f.etcd = nil
	}
}

// asked are the arguments of a cluster verb.
func (f *fleet) asked(args ...string) []string {
	return slices.Concat([]string{"cluster", "--endpoints", f.client}, f.tls, args)
}

func (f *fleet) ctl(args ...string) string { f.t.Helper(); return nsgctl(f.t, f.asked(args...)...) }

// host writes the configuration of a host, with attachments and more keys of cluster.
func (f *fleet) host(name, attachments string, more ...string) (path string) {
	f.t.Helper()
	path = filepath.Join(f.dir, name+".yaml")
	number := f.machine(name)
	writeFile(f.t, path, fmt.Sprintf("cluster:\n  endpoints: [%q]\n  host: %s\n  underlay: 192.0.2.%d\n  lease: 10s\n  cache: %s\n%sattachments:\n%smetrics: {listen: \"off\"}\ncontrol: {socket: %s}\n",
		f.client, name, number, filepath.Join(f.dir, "cache-"+name), strings.Join(more, ""), attachments, f.socket(name)))
	return path
}

// machine makes a host's namespace, at the underlay with the number as its address.
func (f *fleet) machine(name string) (number int) {
	f.t.Helper()
	f.hosts = append(f.hosts, name)
	number = len(f.hosts)
	n := namespaceOf(name)
	must(f.t, "ip", "netns", "add", n)
	must(f.t, "ip", "-n", n, "link", "set", "lo", "up")
	must(f.t, "ip", "-n", n, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", fmt.Sprint(os.Getpid()))
	must(f.t, "ip", "link", "set", name, "master", "underlay", "up")
	must(f.t, "ip", "-n", n, "addr", "add", fmt.Sprintf("192.0.2.%d/24", number), "dev", "eth0")
	must(f.t, "ip", "-n", n, "link", "set", "eth0", "up")
	return number
}

// namespaceOf is that of a host.
func namespaceOf(host string) string { return "host-" + host }

// leave removes the hosts' namespaces.
func (f *fleet) leave() {
	for _, name := range f.hosts {
		if out, err := exec.Command("ip", "netns", "del", namespaceOf(name)).CombinedOutput(); err != nil {
			f.t.Errorf("%v: %s", err, out)
		}
	}
	f.hosts = nil
}

func (f *fleet) socket(name string) string { return filepath.Join(f.dir, "run-"+name, "nsgd.sock") }

// dayAhead has a program's monotonic clocks be a day ahead, as those of a machine that runs for longer: before Linux 6.3 it changes
// nothing.
var dayAhead = []string{"unshare", "-T", "--monotonic", "86400", "--boottime", "86400"}

// run starts a host, by way of another program if one is named. It ends with the test.
func (f *fleet) run(path string, by ...string) *daemon {
	f.t.Helper()
	stdout := newOutput()
	name := strings.TrimSuffix(filepath.Base(path), ".yaml")
	d := launchCommand(f.t, "", stdout, slices.Concat([]string{"nsenter", "--net=/run/netns/" + namespaceOf(name)}, by, []string{program("nsgd"), "run", "--config", path})...)
	d.stdout = stdout
	d.expectErrors = true
	f.t.Cleanup(func() {
		if !d.done {
			d.end(syscall.SIGTERM)
		}
	})
	d.waitFor(d.stderr, "msg=ready")
	return d
}

// status asks a host.
func (f *fleet) status(name string) *inspect.ClusterStatus {
	var s inspect.Status
	a := execute(f.t, "nsgctl", "status", "-o", "json", "--socket", f.socket(name))
	if a.code != 0 || json.Unmarshal([]byte(a.stdout), &s) != nil || s.Cluster == nil {
		return &inspect.ClusterStatus{}
	}
	return s.Cluster
}

// has waits until a host carries a generation with so many network interfaces.
func (f *fleet) has(name string, generation uint64, nics int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%s carries generation %d with %d network interfaces", name, generation, nics), func() bool {
		s := f.status(name)
		return s.Generation == generation && len(s.Attached) == nics && (s.CarriesSeconds == nil || *s.CarriesSeconds > 0)
	})
}

const (
	attachVM2     = "- {networkInterface: vm2-nic, netns: nsgd-vm2, create: true, device: eth0}\n"
	attachVM3     = "- {networkInterface: vm3-nic, netns: nsgd-vm3, create: true, device: eth0}\n"
	attachVM4     = "- {networkInterface: vm4-nic, netns: nsgd-vm4, create: true, device: eth0}\n"
	attachVM1Else = "- {networkInterface: vm1-nic, netns: nsgd-vm1-else, create: true, device: eth0}\n"
)

func TestHostsOfAClusterCarryOnePolicy(t *testing.T) {
	f := startFleet(t)
	one, two, three := f.host("one", attachVM1+attachVM2), f.host("two", attachVM3+attachVM4, "  onLost: goOn\n"), f.host("three", attachVM1Else)
	first := f.run(one)
	second := f.run(two)
	eventually(t, "hosts are registered", func() bool { return f.status("one").Registered && f.status("two").Registered })

	deny := rule{name: "DenyHttpInBound", priority: 200, direction: "Inbound", access: "Deny", protocol: "Tcp", source: "VirtualNetwork", port: "80"}
	open, shut := configure(t, labPolicy()), configure(t, labPolicy().with(nsg1, deny).with(nsg2, deny))
	if out := f.ctl("apply", filepath.Join(open, "policy"), "--message", "open"); !strings.Contains(out, "generation 1: current") || !strings.Contains(out, "carried by 2 hosts: one, two") {
		t.Errorf("apply: %s", out)
	}
	f.has("one", 1, 2)
	f.has("two", 1, 2)
	vm2 := ipv4.vm2
	serveTCP(t, vm2, 80)
	serveTCP(t, vm4, 80)
	kept := mustConnect(t, vm1, vm2, 80)
	mustConnect(t, vm3, vm4, 80)

	third := f.run(three)
	eventually(t, "three waits for one", func() bool {
		w := f.status("three").Waiting
		return len(w) == 1 && w[0].Host == "one"
	})
	if hosts := f.ctl("hosts"); !strings.Contains(hosts, "three") {
		t.Errorf("hosts: %s", hosts)
	}

	f.ctl("apply", filepath.Join(shut, "policy"), "--canary", "two", "--message", "shut")
	f.has("one", 2, 2)
	mustNotConnect(t, vm1, vm2, 80)
	if out := f.ctl("diff"); !strings.Contains(out, "newly denied") {
		t.Errorf("diff: %s", out)
	}
	bad := configure(t, labPolicy())
	writeFile(t, policyFile(bad, "vm3-nic"), strings.ReplaceAll(readFile(t, policyFile(bad, "vm3-nic")), "vm3-nic", "vm9-nic"))
	if a := execute(t, "nsgctl", f.asked("apply", filepath.Join(bad, "policy"))...); a.code != 1 || !strings.Contains(a.stderr, "two: ") || !strings.Contains(a.stderr, `"vm3-nic" not found`) {
		t.Errorf("a policy that two can't carry: %v", a)
	}
	if out := f.ctl("rollback"); !strings.Contains(out, "carried by 3 hosts: one, three, two") {
		t.Errorf("rollback: %s", out)
	}
	mustConnect(t, vm1, vm2, 80)
	mustEcho(t, kept) // over all of it

	first.kill()
	f.has("three", 4, 1)
	eventually(t, "one has gone", func() bool {
		return !strings.Contains(f.ctl("hosts"), "192.0.2.1:4790")
	})

	f.killEtcd()
	second.kill()
	again := f.run(two)
	f.has("two", 4, 2)
	serveTCP(t, vm4, 80)
	mustConnect(t, vm3, vm4, 80)
	eventually(t, "three stops", func() bool { s := f.status("three").CarriesSeconds; return s != nil && *s <= 0 })
	f.startEtcd()
	f.has("three", 4, 1)
	eventually(t, "two is registered again", func() bool { return f.status("two").Registered && f.status("two").Connected })

	last := f.run(one) // clears what it left
	for _, d := range []*daemon{last, again, third} {
		d.end(syscall.SIGTERM)
	}
	f.leave()
	nothingLeft(t)
}

// A host that was stopped past its lease, and goes on, must not carry what another host has now. What its machines have
// sent meanwhile waits in its devices, so it is carried first of all if nothing stops it.
func TestAHostThatWasStoppedCarriesNothingOfAnotherHost(t *testing.T) {
	f := startFleet(t)
	first := f.run(f.host("one", attachVM1+attachVM2))
	eventually(t, "one is registered", func() bool { return f.status("one").Registered })
	f.ctl("apply", filepath.Join(configure(t, labPolicy()), "policy"))
	f.has("one", 1, 2)
	second := f.run(f.host("two", attachVM1Else))
	eventually(t, "two waits for one", func() bool { return len(f.status("two").Waiting) == 1 })
	at := bindUDP(t, ipv4.vm2, 5000)
	from := bindUDP(t, vm1, 5001)
	send(t, from, address(at), 1, 100)
	receive(t, at, 1)

	var s inspect.Status
	if err := json.Unmarshal([]byte(nsgctl(t, "status", "-o", "json", "--socket", f.socket("one"))), &s); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.has("two", 1, 1)
	send(t, from, address(at), 20, 100)
	if err := syscall.Kill(s.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	receiveNothing(t, at)
	eventually(t, "one has what two has not", func() bool {
		s := f.status("one")
		return s.Registered && len(s.Attached) == 1 && len(s.Waiting) == 1 && s.Waiting[0].Host == "two"
	})
	eventually(t, "one tells of what it has dropped", func() bool {
		if err := json.Unmarshal([]byte(nsgctl(t, "status", "-o", "json", "--socket", f.socket("one"))), &s); err != nil {
			t.Fatal(err)
		}
		return s.Dropped["fenced"] >= 20
	})
	for _, d := range []*daemon{first, second} {
		d.end(syscall.SIGTERM)
	}
	f.leave()
	nothingLeft(t)
}
