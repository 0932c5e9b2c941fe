package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/nsgd/nsgd/deploy/lab"
	"go.yaml.in/yaml/v3"
)

// daemons are nsgd with these rules: one setup for each binary and each configuration.
func daemons(o *options, name string, list []rule, start func(binary, keys string, list []rule) (*network, error)) []setup {
	var setups []setup
	for _, binary := range o.nsgd {
		for _, keys := range o.config {
			label := name
			if len(o.nsgd) > 1 {
				label += " " + binary
			}
			if keys != "" {
				label += " [" + keys + "]"
			}
			setups = append(setups, setup{name: label, start: func() (*network, error) { return start(binary, keys, list) }})
		}
	}
	return setups
}

// flowLogs has both versions written. The folder ends with the configuration's.
const flowLogs = "flowLogs: [{version: nsg2, folder: logs}, {version: vnet4, folder: logs}]"

// withFlowLogs chooses what -flow-logs is about.
func (o *options) withFlowLogs() {
	o.setups, o.config = fmt.Sprintf("nsgd-%d", fewRules), list{"", flowLogs}
	if o.measures == "all" {
		o.measures = "tcp1,udp64,connects"
	}
}

// benchConfig attaches the two NICs of writePolicy.
const benchConfig = `
policy: [policy/]
attachments:
- {networkInterface: a-nic, netns: bench-a, create: true, device: eth0}
- {networkInterface: b-nic, netns: bench-b, create: true, device: eth0}
`

// interfaceConfig attaches them where they are: before the interfaces of a router.
const interfaceConfig = `
policy: [policy/]
attachments:
- {networkInterface: a-nic, interface: left, netns: bench-r, device: nsgd-a}
- {networkInterface: b-nic, interface: right, netns: bench-r, device: nsgd-b}
`

func startDaemon(binary, keys string, list []rule) (*network, error) {
	config, err := writeConfig(benchConfig, keys, list)
	if err != nil {
		return nil, err
	}
	return runDaemon(binary, config, benchNetwork)
}

// startBeforeInterfaces starts nsgd before the interfaces of a router that doesn't forward by itself: an answer says
// that nsgd carries packets, not that it is about to.
func startBeforeInterfaces(binary, keys string, list []rule) (*network, error) {
	config, err := writeConfig(interfaceConfig, keys, list)
	if err != nil {
		return nil, err
	}
	if err := makeRouter(); err != nil {
		removeNamespaces()
		return nil, err
	}
	return runDaemon(binary, config, func(pid int, stop func()) *network {
		return benchNetwork(pid, func() {
			stop()
			removeNamespaces() // what nsgd leaves closed ends with them
		})
	})
}

// startBetweenRouters starts nsgd with namespaces of its own and makes each a router, with its host behind a veth
// pair: as many devices on the way as startBeforeInterfaces has, and nothing intercepted.
func startBetweenRouters(binary, keys string, list []rule) (*network, error) {
	n, err := startDaemon(binary, keys, list)
	if err != nil {
		return nil, err
	}
	stop := n.stop
	n.stop = func() {
		for _, end := range ends {
			exec.Command("ip", "netns", "del", end.host).Run()
		}
		stop()
	}
	for _, end := range ends {
		if err = moveHost(end.namespace, end.host, end.address); err != nil {
			n.stop()
			return nil, err
		}
	}
	n.client, n.server = ends[0].host, ends[1].host
	return started(nil, n)
}

// ends are the namespaces of nsgd's devices and those of the hosts that are moved out of them.
var ends = [...]struct{ namespace, host, address string }{
	{clientNamespace, "bench-c", clientAddress}, {serverNamespace, "bench-s", serverAddress},
}

// moveHost moves the address of a namespace's device to a host of its own behind a veth pair. The namespace routes.
func moveHost(namespace, host, address string) error {
	return script(fmt.Sprintf(`
		ip netns add %[2]s
		ip link add host netns %[1]s type veth peer name eth0 netns %[2]s
		ip -n %[1]s addr flush dev eth0
		ip -n %[1]s route replace default dev eth0
		ip -n %[1]s addr add 169.254.0.1/32 dev host
		ip -n %[1]s link set host up
		ip -n %[1]s route add %[3]s dev host
		ip -n %[2]s addr add %[3]s/32 dev eth0
		ip -n %[2]s link set eth0 up
		ip -n %[2]s route add 169.254.0.1 dev eth0
		ip -n %[2]s route add default via 169.254.0.1
		ip netns exec %[1]s sysctl -qw net.ipv4.ip_forward=1
	`, namespace, host, address))
}

// writeConfig writes the policy of the rules and a configuration with other keys.
func writeConfig(text, keys string, list []rule) (path string, err error) {
	dir, err := tempDir()
	if err != nil {
		return "", err
	}
	if err := writePolicy(filepath.Join(dir, "policy"), list); err != nil {
		return "", err
	}
	config, err := mergeConfig([]byte(text), keys)
	if err != nil {
		return "", fmt.Errorf("-config %q: %w", keys, err)
	}
	path = filepath.Join(dir, lab.ConfigName)
	return path, os.WriteFile(path, config, 0o644)
}

func runDaemon(binary, config string, between func(pid int, stop func()) *network) (*network, error) {
	b, err := startBackground(binary, "run", "--config", config)
	if err != nil {
		return nil, err
	}
	n := between(b.cmd.Process.Pid, func() {
		b.stop()
		os.RemoveAll(filepath.Dir(config))
	})
	if err := b.ready(n); err != nil {
		return nil, err
	}
	return n, nil
}

// labDaemon is the lab's figure under nsgd: VM1 to VM4, three NSG stages.
func labDaemon(binary string) (*network, error) {
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	if err := lab.WriteTo(dir); err != nil {
		return nil, err
	}
	return runDaemon(binary, filepath.Join(dir, lab.ConfigName), func(pid int, stop func()) *network {
		return &network{client: "nsgd-vm1", server: "nsgd-vm4", address: vm4Address, pid: pid, stop: stop}
	})
}

// mergeConfig replaces keys of a configuration, also single ones of maps inside it.
func mergeConfig(config []byte, keys string) ([]byte, error) {
	var base, over map[string]any
	if err := yaml.Unmarshal(config, &base); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal([]byte(keys), &over); err != nil {
		return nil, fmt.Errorf("must be keys of the configuration such as 'offload: off': %w", err)
	}
	for _, key := range []string{"policy", "attachments"} {
		if _, given := over[key]; given {
			return nil, errors.New(key + ": is what is measured, and can't be replaced")
		}
	}
	merge(base, over)
	return yaml.Marshal(base)
}

func merge(base, over map[string]any) {
	for key, value := range over {
		inner, isMap := value.(map[string]any)
		if below, both := base[key].(map[string]any); isMap && both {
			merge(below, inner)
			continue
		}
		base[key] = value
	}
}
