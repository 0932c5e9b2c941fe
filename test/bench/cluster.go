package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/deploy/lab"
)

// clusterOptions are the flags of -cluster.
type clusterOptions struct {
	losses int
	lease  time.Duration
	rate   int
	row    string // part of a row's name; empty: all
}

const (
	clusterDir  = stateDir + "/cluster"
	etcdHost    = "bench-etcd" // a network namespace
	etcdAddress = "192.168.99.254"
	etcdURL     = "http://" + etcdAddress + ":2379"
	// farGuest and farGuestElse are the namespaces of vm3 at its two hosts.
	farGuest, farGuestElse = "bench-vm3", "bench-vm3-else"
	// clusterPatience bounds how long a cluster may take until it is as it should be.
	clusterPatience = time.Minute
)

// clusterHost is a host of the cluster, with one network interface.
type clusterHost struct {
	name, address, nic, guest string
	device                    string      // of the network interface in guest
	run                       *background // nil: it is dead
}

// cluster is an etcd and hosts with an underlay between them, in namespaces. The last two hosts want the same network
// interface: one of them has it.
type clusterRig struct {
	binary string
	lease  time.Duration
	goOn   bool
	// shared says that vm3 is one machine, with a device of each of its hosts: the one that it leaves goes.
	shared bool
	etcd   *background // nil: it is dead
	hosts  []*clusterHost
}

func newClusterRig(binary string, lease time.Duration) (*clusterRig, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	c := &clusterRig{binary: binary, lease: lease, hosts: []*clusterHost{
		{name: "bench-h1", address: "192.168.99.1", nic: "vm1-nic", guest: "bench-vm1", device: "eth0"},
		{name: "bench-h2", address: "192.168.99.2", nic: "vm3-nic", guest: farGuest, device: "eth0"},
		{name: "bench-h3", address: "192.168.99.3", nic: "vm3-nic", guest: farGuestElse, device: "eth0"},
	}}
	if err := os.MkdirAll(clusterDir, 0o755); err != nil {
		return nil, err
	}
	lines := "ip link add ul type bridge\nip link set ul up\n"
	for n, h := range append([]*clusterHost{{name: etcdHost, address: etcdAddress}}, c.hosts...) {
		lines += underlayLines(h, n)
		if h.guest != "" {
			lines += "ip netns add " + h.guest + "\n" // here, so that what listens in it is there before its device is
			lines += "ip -n " + h.guest + " link set lo up\n"
		}
	}
	if err := script(lines); err != nil {
		return nil, err
	}
	return c, c.startEtcd()
}

func (c *clusterRig) startEtcd() (err error) {
	peer := "http://127.0.0.1:2380"
	c.etcd, err = startBackground("nsenter", "--net=/run/netns/"+etcdHost, "etcd", "--data-dir", clusterDir+"/etcd", "--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error")
	if err != nil {
		return err
	}
	return poll(clusterPatience, func() error { _, err := c.ctl("history"); return err })
}

// killEtcd ends etcd at once; with empty all that it held is gone.
func (c *clusterRig) killEtcd(empty bool) error {
	c.etcd.cmd.Process.Kill()
	<-c.etcd.ended
	if empty {
		return os.RemoveAll(clusterDir + "/etcd")
	}
	return nil
}

// nsgctl is a verb of nsgctl cluster.
func (c *clusterRig) nsgctl(verb string, args ...string) *exec.Cmd {
	args = append([]string{"--net=/run/netns/" + etcdHost, filepath.Join(filepath.Dir(c.binary), "nsgctl"), "cluster", verb, "--endpoints", etcdURL}, args...)
	return exec.Command("nsenter", args...)
}

// ctl runs a verb of nsgctl cluster.
func (c *clusterRig) ctl(verb string, args ...string) ([]byte, error) {
	out, err := c.nsgctl(verb, args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nsgctl cluster %s: %w: %s", verb, err, out)
	}
	return out, nil
}

// apply applies the lab's policy, in which nothing may reach a port; number makes it another one.
func (c *clusterRig) apply(number int) error {
	folder := filepath.Join(clusterDir, "policy", strconv.Itoa(number))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.CopyFS(folder, lab.Files()); err != nil {
		return err
	}
	file := filepath.Join(folder, "policy/nsg2.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var document map[string]any
	if err := json.Unmarshal(text, &document); err != nil {
		return err
	}
	properties := document["properties"].(map[string]any)
	properties["securityRules"] = append(properties["securityRules"].([]any), map[string]any{"name": fmt.Sprint("DenyInBound", number), "properties": map[string]any{
		"priority": 200, "direction": "Inbound", "access": "Deny", "protocol": "Udp", "sourceAddressPrefix": "*", "sourcePortRange": "*",
		"destinationAddressPrefix": "*", "destinationPortRange": strconv.Itoa(deniedPort)}})
	if text, err = json.Marshal(document); err != nil {
		return err
	}
	if err := replace(file, text); err != nil {
		return err
	}
	_, err = c.ctl("apply", filepath.Join(folder, "policy"), "--max-unavailable", "3", "--wait", "10s")
	return err
}

func (h *clusterHost) dir() string    { return filepath.Join(clusterDir, h.name) }
func (h *clusterHost) socket() string { return filepath.Join(h.dir(), "nsgd.sock") }

// start starts a host's nsgd, under nsgd keep.
func (c *clusterRig) start(h *clusterHost) (err error) {
	onLost := "stop"
	if c.goOn {
		onLost = "goOn"
	}
	config := filepath.Join(clusterDir, h.name+".yaml")
	text := fmt.Sprintf("cluster: {endpoints: [%q], host: %s, underlay: %s, lease: %v, onLost: %s, cache: %s}\nattachments:\n- {networkInterface: %s, netns: %s, device: %s, mtu: 1450}\nmetrics: {listen: \"off\"}\ncontrol: {socket: %s}\n",
		etcdURL, h.name, h.address, c.lease, onLost, filepath.Join(h.dir(), "cache"), h.nic, h.guest, h.device, h.socket())
	if err := errors.Join(os.MkdirAll(h.dir(), 0o700), os.WriteFile(config, []byte(text), 0o644)); err != nil {
		return err
	}
	h.run, err = startBackground("nsenter", "--net=/run/netns/"+h.name, c.binary, "keep", "--", c.binary, "run", "--config", config)
	return err
}

// die ends a host at once.
func (h *clusterHost) die() error {
	err := h.signal(syscall.SIGKILL)
	<-h.run.ended
	h.run = nil
	return err
}

// end ends a host as an administrator does.
func (h *clusterHost) end() {
	if h.run != nil {
		h.run.stop()
		h.run = nil
	}
}

// status is what a host says: whether it has its network interface and carries, and its process; 0: it does not answer.
func (h *clusterHost) status() (carries, registered bool, pid int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	client := control.NewClient(h.socket())
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil || s.Cluster == nil {
		return false, false, 0
	}
	k := s.Cluster
	return len(k.Attached) == 1 && (k.CarriesSeconds == nil || *k.CarriesSeconds > 0), k.Registered && k.Connected, s.PID
}

// share makes vm3 one machine that its hosts have in turn, or one at each.
func (c *clusterRig) share(shared bool) {
	last := c.hosts[2]
	if last.guest, last.device = farGuestElse, "eth0"; shared {
		last.guest, last.device = farGuest, "eth1"
	}
	c.shared = shared
}

// move moves vm3 to another host. Until then its routes by the device that goes are others than those that the next
// host brings, which would be refused.
func (c *clusterRig) move(from, to *clusterHost) error {
	lines := ""
	for _, all := range [][3]string{{"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"}, {"::/0", "::/1", "8000::/1"}} {
		lines += fmt.Sprintf("ip -n %[1]s route del %[3]s dev %[2]s\nip -n %[1]s route add %[4]s dev %[2]s\nip -n %[1]s route add %[5]s dev %[2]s\n", from.guest, from.device, all[0], all[1], all[2])
	}
	err := script(lines)
	if err == nil {
		_, err = c.ctl("move", from.nic, to.name)
	}
	return err
}

// holder is the host that carries vm3, and standby the other one.
func (c *clusterRig) holder() (holder, standby *clusterHost, err error) {
	for i, h := range c.hosts[1:] {
		if h.run == nil {
			continue
		}
		if carries, _, _ := h.status(); carries {
			return h, c.hosts[2-i], nil
		}
	}
	return nil, nil, errors.New("nobody has vm3-nic")
}

// whole starts what is dead, and waits until every host is registered and vm3 has one that carries. Without rivals only
// one host is there that wants it.
func (c *clusterRig) whole(rivals bool) (err error) {
	hosts := c.hosts
	if holder, standby, _ := c.holder(); !rivals {
		if holder == nil {
			holder, standby = c.hosts[1], c.hosts[2]
		}
		standby.end()
		hosts = []*clusterHost{c.hosts[0], holder}
	}
	for _, h := range hosts {
		if h.run == nil {
			err = errors.Join(err, c.start(h))
		}
	}
	return errors.Join(err, poll(clusterPatience, func() error {
		for _, h := range hosts {
			if _, registered, _ := h.status(); !registered {
				return fmt.Errorf("%s is not registered: %s", h.name, h.run.tail())
			}
		}
		if carries, _, _ := c.hosts[0].status(); !carries {
			return fmt.Errorf("%s carries nothing", c.hosts[0].name)
		}
		_, _, err := c.holder()
		return err
	}))
}

// tail is the end of what a program has said, for errors: it may be torn while the program runs.
func (b *background) tail() string {
	select {
	case <-b.ended:
		text := b.log.Bytes()
		return fmt.Sprintf("%v: %s", b.err, text[max(0, len(text)-2000):])
	default:
		return "it runs"
	}
}
