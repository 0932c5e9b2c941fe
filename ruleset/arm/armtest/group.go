package armtest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// Policy is a made-up policy: one virtual network with a subnet for each network security group.
type Policy struct {
	// Groups are 1 to 4,096; Rules of each 1,000 at most.
	Groups, Rules int
	// Interfaces are in the subnets in turn, 1,000 in one at most.
	Interfaces int
	// Tags are what one pair of rules in TagEvery names, in turn over all groups; 0: none does. The others name a prefix.
	Tags     []string
	TagEvery int
}

// The types of documents.
const (
	groupType     = "Microsoft.Network/networkSecurityGroups"
	networkType   = "Microsoft.Network/virtualNetworks"
	interfaceType = "Microsoft.Network/networkInterfaces"
)

type object = map[string]any

// Group is the document of network security group number n. Its rules are inbound and
// outbound in turn. Each is between a subnet and a tag or a prefix of the internet, for another port.
func (p *Policy) Group(n int) []byte {
	list := make([]any, p.Rules)
	for i := range list {
		direction, near, far := "Inbound", "destination", "source"
		if i%2 == 1 {
			direction, near, far = "Outbound", "source", "destination"
		}
		list[i] = object{"name": fmt.Sprintf("rule%d", i), "properties": object{
			"priority": 1000 + i, "direction": direction, "access": "Allow", "protocol": "Tcp",
			"sourcePortRange": "*", "destinationPortRange": fmt.Sprint(20000 + i),
			far + "AddressPrefix":  p.far(n, i),
			near + "AddressPrefix": fmt.Sprintf("10.%d.%d.0/24", 128+n%64, i%256),
		}}
	}
	return marshal(object{
		"type": groupType, "name": groupName(n), "location": "westeurope", "properties": object{"securityRules": list},
	})
}

// far is what rule i of group n names on the internet. A pair of rules, inbound and outbound, names the same.
func (p *Policy) far(n, i int) string {
	pair := n*((p.Rules+1)/2) + i/2
	if every := p.TagEvery; every > 0 && pair%every == 0 {
		return p.Tags[pair/every%len(p.Tags)]
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(64 + pair>>16%64), byte(pair >> 8), byte(pair), 0}), 24).String()
}

func groupName(n int) string { return fmt.Sprintf("many%d", n) }

func marshal(document any) []byte {
	data, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return data
}

// subnet is the prefix of subnet number n.
func subnet(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + n>>6), byte(n << 2), 0}), 22)
}

// network is the document of the virtual network.
func (p *Policy) network() []byte {
	subnets := make([]any, p.Groups)
	for n := range subnets {
		subnets[n] = object{"name": fmt.Sprintf("subnet%d", n), "properties": object{
			"addressPrefix": subnet(n).String(), "networkSecurityGroup": object{"id": groupName(n)},
		}}
	}
	return marshal(object{
		"type": networkType, "name": "many", "location": "westeurope",
		"properties": object{"addressSpace": object{"addressPrefixes": []string{"10.128.0.0/10"}}, "subnets": subnets},
	})
}

// InterfaceName is the name of network interface number n.
func InterfaceName(n int) string { return fmt.Sprintf("nic%d", n) }

// Address is that of network interface number n.
func (p *Policy) Address(n int) netip.Addr {
	a := subnet(n % p.Groups).Addr().As4()
	at := n/p.Groups + 4 // Azure keeps the first addresses of a subnet
	a[2], a[3] = a[2]+byte(at>>8), byte(at)
	return netip.AddrFrom4(a)
}

// Interface is the document of network interface number n.
func (p *Policy) Interface(n int) []byte {
	return marshal(object{
		"type": interfaceType, "name": InterfaceName(n), "location": "westeurope",
		"properties": object{"ipConfigurations": []object{{"name": "ipconfig", "properties": object{
			"primary": true, "privateIPAddress": p.Address(n), "privateIPAllocationMethod": "Static",
			"subnet": object{"id": fmt.Sprintf("many/subnet%d", n%p.Groups)},
		}}}},
	})
}

// Write writes the documents into a folder, a file each.
func (p *Policy) Write(dir string) error {
	if err := os.WriteFile(NetworkFile(dir), p.network(), 0o644); err != nil {
		return err
	}
	for n := range p.Groups {
		if err := os.WriteFile(GroupFile(dir, n), p.Group(n), 0o644); err != nil {
			return err
		}
	}
	for n := range p.Interfaces {
		if err := os.WriteFile(InterfaceFile(dir, n), p.Interface(n), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// largest is a policy whose rules all name one of the largest tags.
func largest(groups, rules int) *Policy {
	return &Policy{Groups: groups, Rules: rules, Tags: LargestTags, TagEvery: 1}
}

// Group is a group as WriteGroups writes it.
func Group(n, rules int) []byte { return largest(0, rules).Group(n) }

// WriteGroups writes into dir the documents of network security groups, a file
// each, and of a virtual network with a subnet for each group. All rules name one of the largest tags.
func WriteGroups(tb testing.TB, dir string, groups, rules int) {
	tb.Helper()
	if err := largest(groups, rules).Write(dir); err != nil {
		tb.Fatal(err)
	}
}

// NetworkFile is where Write puts the virtual network.
func NetworkFile(dir string) string { return filepath.Join(dir, "many.json") }

// GroupFile is where Write puts group n.
func GroupFile(dir string, n int) string { return filepath.Join(dir, groupName(n)+".json") }

// InterfaceFile is where Write puts network interface n.
func InterfaceFile(dir string, n int) string { return filepath.Join(dir, InterfaceName(n)+".json") }
