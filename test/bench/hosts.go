package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// clusterConfig is one host's of two that share a policy.
const clusterConfig = `
cluster: {endpoints: [%q], host: %s, underlay: %s, cache: %q}
attachments:
- {networkInterface: %s, netns: %s, create: true, device: eth0, mtu: %d}
metrics: {listen: "off"}
control: {socket: %q}
`

// startBetweenHosts starts nsgd on two hosts, with an etcd that the near one serves.
func startBetweenHosts(binary, keys string, list []rule) (_ *network, err error) {
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	var running []*background
	stop := func() {
		for _, b := range slices.Backward(running) {
			b.stop()
		}
		removeHosts()
		os.RemoveAll(dir)
	}
	defer func() {
		if err != nil {
			for _, b := range running {
				err = errors.Join(err, errors.New(b.log.String()))
			}
			stop()
		}
	}()
	if err := makeHosts(); err != nil {
		return nil, err
	}
	start := func(host string, program ...string) error {
		// The namespaces that nsgd makes are to be seen from here, so that it keeps this process's mounts.
		b, err := startBackground("nsenter", append([]string{"--net=/run/netns/" + host}, program...)...)
		if err == nil {
			running = append(running, b)
		}
		return err
	}
	policy, client := filepath.Join(dir, "policy"), "http://"+nearUnderlay+":2379"
	if err := writePolicy(policy, list); err != nil {
		return nil, err
	}
	if err := start(nearHost, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", "http://"+nearUnderlay+":2380", "--logger", "zap", "--log-level", "error"); err != nil {
		return nil, err
	}
	if err := command("ip", "netns", "exec", nearHost, filepath.Join(filepath.Dir(binary), "nsgctl"),
		"cluster", "apply", "--endpoints", client, "--message", "bench", policy); err != nil {
		return nil, err
	}
	for _, h := range []struct{ host, underlay, nic, guest string }{
		{nearHost, nearUnderlay, "a-nic", clientNamespace}, {farHost, farUnderlay, "b-nic", serverNamespace},
	} {
		own := filepath.Join(dir, h.host)
		if err := os.Mkdir(own, 0o700); err != nil { // one of each nsgd: it is its state directory
			return nil, err
		}
		config, err := mergeConfig(fmt.Appendf(nil, clusterConfig, client, h.host, h.underlay, filepath.Join(own, "cache"),
			h.nic, h.guest, insideMTU, filepath.Join(own, "nsgd.sock")), keys)
		if err != nil {
			return nil, fmt.Errorf("-config %q: %w", keys, err)
		}
		path := filepath.Join(own, "nsgd.yaml")
		if err := os.WriteFile(path, config, 0o600); err != nil {
			return nil, err
		}
		if err := start(h.host, binary, "run", "--config", path); err != nil {
			return nil, err
		}
	}
	n := benchNetwork(running[1].cmd.Process.Pid, stop)
	return n, n.ready()
}
