package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/tun"
)

// fleetOptions are the flags of -fleet.
type fleetOptions struct{ hosts, nics, attached, changes int }

// fleetPatience bounds how long a fleet may take until everything is attached.
const fleetPatience = 10 * time.Minute

// runFleet measures how long a rule change takes until every host carries it, with a daemon and an engine on each, and
// what it costs a host and etcd.
func runFleet(binary string, o fleetOptions) error {
	if o.hosts*o.attached > o.nics || o.hosts > 200 {
		return fmt.Errorf("-fleet: %d hosts of %d network interfaces: allowed are 200 hosts, and %d network interfaces in all", o.hosts, o.attached, o.nics)
	}
	if err := privateWorld(); err != nil {
		return err
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	c := &clusterRig{binary: binary, lease: 30 * time.Second}
	if err := os.MkdirAll(clusterDir, 0o755); err != nil {
		return err
	}
	lines := "ip link add ul type bridge\nip link set ul up\n"
	for n := range o.hosts + 1 {
		h := &clusterHost{name: fmt.Sprint("fleet-h", n), address: fmt.Sprintf("192.168.99.%d", n)}
		if n == 0 {
			h = &clusterHost{name: etcdHost, address: etcdAddress}
		} else {
			c.hosts = append(c.hosts, h)
		}
		lines += underlayLines(h, n)
	}
	if err := errors.Join(script(lines), c.startEtcd()); err != nil {
		return err
	}
	defer c.end()
	if _, err := c.applyFleet(0, o.nics); err != nil {
		return err
	}
	for n, h := range c.hosts {
		if err := c.startFleet(h, n, o); err != nil {
			return err
		}
	}
	began := time.Now()
	if err := poll(fleetPatience, func() error {
		for _, h := range c.hosts {
			if got := h.attachedNow(); got != o.attached {
				return fmt.Errorf("%s has %d network interfaces: %s", h.name, got, h.run.tail())
			}
		}
		return nil
	}); err != nil {
		return err
	}
	fmt.Printf("%d hosts with %d network interfaces each, of %d in the policy; attached after %.0f s\n", o.hosts, o.attached, o.nics, time.Since(began).Seconds())
	time.Sleep(5 * time.Second) // placements follow claims
	for n := range o.changes {
		hosts, store, wrote, sent := c.cpu(), namespaceCPU(etcdHost), etcdCounts(etcdWrote), etcdCounts(etcdSent)
		began := time.Now()
		committed, err := c.applyFleet(n+1, o.nics)
		if err != nil {
			return err
		}
		took := time.Since(began)
		hosts, store, wrote, sent = c.cpu()-hosts, namespaceCPU(etcdHost)-store, etcdCounts(etcdWrote)-wrote, etcdCounts(etcdSent)-sent
		fmt.Printf("change %d: nsgctl cluster apply until all carry it %.2f s, %.2f s of them from the commit; processor time a host %.0f ms, etcd %.0f ms in all; etcd took %d bytes and sent %d\n",
			n+1, took.Seconds(), (took - committed.Sub(began)).Seconds(), milliseconds(hosts)/float64(o.hosts), milliseconds(store), wrote, sent)
	}
	memory := 0
	for _, h := range c.hosts {
		memory += h.resident()
	}
	fmt.Printf("resident memory a host %d MB\n", memory/o.hosts>>20)
	return nil
}

// underlayLines makes a host's namespace on the underlay.
func underlayLines(h *clusterHost, n int) string {
	return fmt.Sprintf(`
		ip netns add %[1]s
		ip -n %[1]s link set lo up
		ip -n %[1]s link add eth0 type veth peer name ul%[3]d netns %[4]d
		ip link set ul%[3]d master ul up
		ip -n %[1]s addr add %[2]s/24 dev eth0
		ip -n %[1]s link set eth0 up
	`, h.name, h.address, n, os.Getpid())
}

// applyFleet applies a policy of one subnet with an NSG of 100 rules. number changes one of the rules. committed is when
// nsgctl says that the policy is current.
func (c *clusterRig) applyFleet(number, nics int) (committed time.Time, err error) {
	const group = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/lab/providers/Microsoft.Network/"
	type object = map[string]any
	var rules, interfaces []object
	for n := range 100 {
		port := 1000 + n
		if n == 50 {
			port = 20_000 + number
		}
		rules = append(rules, object{"name": fmt.Sprint("rule", n), "properties": object{"priority": 100 + n, "direction": "Inbound", "access": "Allow", "protocol": "Tcp",
			"sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": strconv.Itoa(port)}})
	}
	subnet := object{"id": group + "virtualNetworks/vnet/subnets/subnet"}
	for n := range nics {
		name := fmt.Sprint("nic", n)
		interfaces = append(interfaces, object{"name": name, "id": group + "networkInterfaces/" + name, "type": "Microsoft.Network/networkInterfaces", "location": "westeurope",
			"properties": object{"ipConfigurations": []object{{"name": "ip", "properties": object{"privateIPAddress": fmt.Sprintf("10.0.%d.%d", 4+n/250, 4+n%250),
				"privateIPAddressVersion": "IPv4", "privateIPAllocationMethod": "Static", "primary": true, "subnet": subnet}}}}})
	}
	folder := filepath.Join(clusterDir, "policy", strconv.Itoa(number))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return committed, err
	}
	for name, value := range map[string]any{
		"nsg": object{"name": "nsg", "id": group + "networkSecurityGroups/nsg", "type": "Microsoft.Network/networkSecurityGroups", "location": "westeurope", "properties": object{"securityRules": rules}},
		"vnet": object{"name": "vnet", "id": group + "virtualNetworks/vnet", "type": "Microsoft.Network/virtualNetworks", "location": "westeurope", "properties": object{
			"addressSpace": object{"addressPrefixes": []string{"10.0.0.0/16"}},
			"subnets":      []object{{"name": "subnet", "properties": object{"addressPrefix": "10.0.0.0/16", "networkSecurityGroup": object{"id": group + "networkSecurityGroups/nsg"}}}}}},
		"nics": interfaces,
	} {
		text, err := json.Marshal(value)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+".json"), text, 0o644)
		}
		if err != nil {
			return committed, err
		}
	}
	said := &commitWriter{}
	cmd := c.nsgctl("apply", folder, "--wait", "5m")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		return committed, fmt.Errorf("nsgctl cluster apply: %w: %s", err, said.text.Bytes())
	}
	if said.when.IsZero() || bytes.Contains(said.text.Bytes(), []byte("not carried")) {
		return committed, fmt.Errorf("nsgctl cluster apply: %s", said.text.Bytes())
	}
	return said.when, nil
}

// commitWriter notes when nsgctl says that a generation is current.
type commitWriter struct {
	text bytes.Buffer
	when time.Time
}

func (w *commitWriter) Write(b []byte) (int, error) {
	if w.when.IsZero() && bytes.Contains(b, []byte(" is current\n")) {
		w.when = time.Now()
	}
	return w.text.Write(b)
}

// startFleet starts a host's nsgd, with a namespace for each network interface.
func (c *clusterRig) startFleet(h *clusterHost, n int, o fleetOptions) (err error) {
	config := filepath.Join(clusterDir, h.name+".yaml")
	text := fmt.Sprintf("cluster: {endpoints: [%q], host: %s, underlay: %s, lease: %v, cache: %s}\nmetrics: {listen: \"off\"}\nflows: {max: 10000, maxPerNetworkInterface: 10000}\ncontrol: {socket: %s}\nattachments:\n",
		etcdURL, h.name, h.address, c.lease, filepath.Join(h.dir(), "cache"), h.socket())
	for i := range o.attached {
		nic := n*o.attached + i
		text += fmt.Sprintf("- {networkInterface: nic%[1]d, netns: fleet-vm%[1]d, create: true, device: eth0, mtu: 1450}\n", nic)
	}
	if err := errors.Join(os.MkdirAll(h.dir(), 0o700), os.WriteFile(config, []byte(text), 0o644)); err != nil {
		return err
	}
	h.run, err = startBackground("nsenter", "--net=/run/netns/"+h.name, c.binary, "run", "--config", config)
	return err
}

func (h *clusterHost) attachedNow() int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := control.NewClient(h.socket())
	defer client.Close()
	s, err := client.Status(ctx)
	if err != nil || s.Cluster == nil {
		return 0
	}
	return len(s.Cluster.Attached)
}

// cpu is the processor time of all hosts.
func (c *clusterRig) cpu() (sum time.Duration) {
	for _, h := range c.hosts {
		sum += namespaceCPU(h.name)
	}
	return sum
}

// clockTick is the unit of times in /proc.
const clockTick = 10 * time.Millisecond

// namespaceCPU is the processor time of the processes that live in a network namespace.
func namespaceCPU(namespace string) (sum time.Duration) {
	for _, pid := range pidsOf(namespace) {
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		_, rest, ok := strings.Cut(string(text), ") ")
		if fields := strings.Fields(rest); err == nil && ok && len(fields) > 12 {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			sum += time.Duration(user+system) * clockTick
		}
	}
	return sum
}

// resident is the memory of a host's processes in bytes.
func (h *clusterHost) resident() (sum int) {
	for _, pid := range pidsOf(h.name) {
		text, err := os.ReadFile("/proc/" + pid + "/statm")
		if fields := strings.Fields(string(text)); err == nil && len(fields) > 1 {
			pages, _ := strconv.Atoi(fields[1])
			sum += pages * os.Getpagesize()
		}
	}
	return sum
}

func pidsOf(namespace string) []string {
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}

// What etcd counts, in bytes: what it was given to keep, and what it has sent to clients.
const (
	etcdWrote = "etcd_debugging_mvcc_total_put_size_in_bytes"
	etcdSent  = "etcd_network_client_grpc_sent_bytes_total"
)

// etcdCounts is a metric of etcd; -1: it does not say.
func etcdCounts(metric string) int64 {
	var text []byte
	err := tun.Do(etcdHost, func() error {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(etcdURL, "http://"), 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		text, err = io.ReadAll(conn)
		return err
	})
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, metric+" "); ok {
			n, failed := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil && failed == nil {
				return int64(n)
			}
		}
	}
	return -1
}

// signal sends a signal to all of a host's processes.
func (h *clusterHost) signal(s syscall.Signal) (err error) {
	for _, text := range pidsOf(h.name) {
		pid, failed := strconv.Atoi(text)
		if failed == nil {
			failed = syscall.Kill(pid, s)
		}
		err = errors.Join(err, failed)
	}
	return err
}
