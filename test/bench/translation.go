package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsgd/nsgd/deploy/lab"
)

// translations are nsgd with the lab of translated addresses: the same traffic with nothing
// translated, through a public IP, through a NAT gateway, and through a load balancer.
func translations(binary string) []setup {
	const internet, host = "nsgd-internet", "203.0.113.10"
	var setups []setup
	for _, s := range []struct {
		name string
		network
	}{
		{"untranslated", network{client: internet, server: "nsgd-vm", address: "10.1.2.4"}},
		{"public-ip", network{client: internet, server: "nsgd-vm", address: "198.51.100.20"}},
		{"nat-gateway", network{client: "nsgd-app", server: internet, address: host}},
		// A load balancer answers no ping.
		{"load-balancer", network{client: internet, server: "nsgd-web1", address: "198.51.100.10", pinged: "10.1.1.4"}},
	} {
		setups = append(setups, setup{name: s.name, start: func() (*network, error) {
			config, err := writeTranslation()
			if err != nil {
				return nil, err
			}
			return runDaemon(binary, config, func(pid int, stop func()) *network {
				n := s.network
				n.pid, n.stop = pid, stop
				return &n
			})
		}})
	}
	return setups
}

// iperfPort is the one that iperf3 listens on.
const iperfPort = 5201

// writeTranslation writes the lab with rules that allow everything and a load balancer that leads
// iperf3's port to one backend, and returns where its configuration is.
func writeTranslation() (config string, err error) {
	dir, err := tempDir()
	if err != nil {
		return "", err
	}
	files := lab.Translation()
	if err := os.CopyFS(dir, files); err != nil {
		return "", err
	}
	documents, err := fs.Glob(files, "translation/*.json")
	if err != nil {
		return "", err
	}
	for _, name := range documents {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return "", err
		}
		var document map[string]any
		if err := json.Unmarshal(text, &document); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		openForIperf(strings.TrimSuffix(filepath.Base(name), ".json"), document["properties"].(map[string]any))
		if text, err = json.Marshal(document); err != nil {
			return "", err
		}
		if err := replace(filepath.Join(dir, name), text); err != nil {
			return "", err
		}
	}
	config = filepath.Join(dir, "translation.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	// What is not translated comes to private addresses.
	return config, replace(config, bytes.Replace(text, []byte("internet: true,"), []byte("internet: true, reachPrivate: true,"), 1))
}

// replace writes a file anew: the embedded files are read-only, and so are copies of them.
func replace(path string, text []byte) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func openForIperf(name string, properties map[string]any) {
	switch name {
	case "web-nsg", "vm-nsg":
		properties["securityRules"] = []any{map[string]any{"name": "AllowAllInBound", "properties": map[string]any{
			"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "*", "sourceAddressPrefix": "*", "sourcePortRange": "*",
			"destinationAddressPrefix": "*", "destinationPortRange": "*"}}}
	case "shop-lb":
		rule := properties["loadBalancingRules"].([]any)[0].(map[string]any)["properties"].(map[string]any)
		rule["frontendPort"], rule["backendPort"] = iperfPort, iperfPort
		delete(rule, "probe")
	case "web2-nic":
		configuration := properties["ipConfigurations"].([]any)[0].(map[string]any)["properties"].(map[string]any)
		delete(configuration, "loadBalancerBackendAddressPools")
		delete(configuration, "loadBalancerInboundNatRules")
	}
}
