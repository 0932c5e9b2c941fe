package armtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Group is the document of network security group number n. Its rules are inbound and
// outbound in turn. Each is between a subnet and one of the largest tags, for another port.
func Group(n, rules int) []byte {
	list := make([]any, rules)
	for i := range list {
		direction, near, far := "Inbound", "destination", "source"
		if i%2 == 1 {
			direction, near, far = "Outbound", "source", "destination"
		}
		list[i] = map[string]any{"name": fmt.Sprintf("rule%d", i), "properties": map[string]any{
			"priority": 1000 + i, "direction": direction, "access": "Allow", "protocol": "Tcp",
			"sourcePortRange": "*", "destinationPortRange": fmt.Sprint(20000 + i),
			far + "AddressPrefix":  LargestTags[i/2%len(LargestTags)],
			near + "AddressPrefix": fmt.Sprintf("10.%d.%d.0/24", 128+n, i%256),
		}}
	}
	return marshal(map[string]any{
		"type": "Microsoft.Network/networkSecurityGroups", "name": fmt.Sprintf("many%d", n), "location": "westeurope",
		"properties": map[string]any{"securityRules": list},
	})
}

func marshal(document any) []byte {
	data, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return data
}

// network is the document of a virtual network with a subnet for each group.
func network(groups int) []byte {
	subnets := make([]any, groups)
	for n := range subnets {
		subnets[n] = map[string]any{"name": fmt.Sprintf("subnet%d", n), "properties": map[string]any{
			"addressPrefix":        fmt.Sprintf("10.%d.0.0/16", 128+n),
			"networkSecurityGroup": map[string]any{"id": fmt.Sprintf("many%d", n)},
		}}
	}
	return marshal(map[string]any{
		"type": "Microsoft.Network/virtualNetworks", "name": "many", "location": "westeurope",
		"properties": map[string]any{
			"addressSpace": map[string]any{"addressPrefixes": []string{"10.128.0.0/10"}}, "subnets": subnets,
		},
	})
}

// WriteGroups writes into dir the documents of at most 64 network security groups, a file
// each, and of a virtual network with a subnet for each group.
func WriteGroups(tb testing.TB, dir string, groups, rules int) {
	tb.Helper()
	if err := os.WriteFile(NetworkFile(dir), network(groups), 0o644); err != nil {
		tb.Fatal(err)
	}
	for n := range groups {
		if err := os.WriteFile(GroupFile(dir, n), Group(n, rules), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// NetworkFile is where WriteGroups puts the virtual network.
func NetworkFile(dir string) string { return filepath.Join(dir, "many.json") }

// GroupFile is where WriteGroups puts group n.
func GroupFile(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("many%d.json", n)) }
