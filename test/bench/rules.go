package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The two ends of every setup, and the ports that the measured traffic uses.
const (
	clientNamespace, serverNamespace, routerNamespace = "bench-a", "bench-b", "bench-r"
	clientAddress, serverAddress                      = "10.0.1.4", "10.0.3.4"

	connectPort = 8080
	udpPort     = 9000
	pingPort    = 9001
	httpPort    = 8081
	quicPort    = 9100 // of the first flow
)

// rule is one rule as each of the filters can say it. The zero ports are all ports.
type rule struct {
	allow            bool
	protocol         string // tcp, udp or empty: every one
	source, dest     string // prefixes
	ports, portsLast int
}

// rules are a policy of n rules in order. The last one allows what is measured; those before
// it deny other traffic and differ from the measured in one field, each kind in another.
func rules(n int) []rule {
	list := make([]rule, n)
	for i := range list {
		switch i % 4 {
		case 0:
			list[i] = rule{protocol: "tcp", source: clientAddress + "/32", dest: serverAddress + "/32", ports: 20_000 + i, portsLast: 20_000 + i}
		case 1:
			list[i] = rule{protocol: "udp", source: "10.0.0.0/16", dest: "10.0.3.0/24", ports: 30_000 + 2*i, portsLast: 30_000 + 2*i + 1}
		case 2:
			list[i] = rule{source: fmt.Sprintf("198.18.%d.0/24", i/4), dest: serverAddress + "/32"}
		case 3:
			list[i] = rule{protocol: "tcp", source: "10.0.1.0/24", dest: fmt.Sprintf("203.0.113.%d/32", i/4), ports: connectPort, portsLast: connectPort}
		}
	}
	list[n-1] = rule{allow: true, source: "10.0.1.0/24", dest: "10.0.3.0/24"}
	return list
}

// maxRules is what one network security group holds, and what the address ranges of rules allow.
const maxRules = 1000

// nftables holds the rules twice, as outbound ones of the client's NIC and as inbound ones of
// the server's.
func nftables(list []rule) string {
	var b strings.Builder
	b.WriteString("table ip filter {\n")
	for _, chain := range []string{"outbound", "inbound"} {
		fmt.Fprintf(&b, "chain %s {\n", chain)
		for _, r := range list {
			fmt.Fprintf(&b, "ip saddr %s ip daddr %s ", r.source, r.dest)
			if r.protocol != "" {
				fmt.Fprintf(&b, "%s dport %d-%d ", r.protocol, r.ports, r.portsLast)
			}
			b.WriteString("counter ")
			if r.allow {
				b.WriteString("return\n")
			} else {
				b.WriteString("drop\n")
			}
		}
		b.WriteString("drop\n}\n")
	}
	b.WriteString(`chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related counter accept
		jump outbound
		jump inbound
		counter accept
	}
}
`)
	return b.String()
}

// object is a JSON object.
type object = map[string]any

// armGroup is the network security group of the rules.
func armGroup(name, direction string, list []rule) object {
	var rules []object
	for i, r := range list {
		p := object{
			"priority": 100 + i, "direction": direction, "access": "Deny", "protocol": "*",
			"sourceAddressPrefix": r.source, "sourcePortRange": "*",
			"destinationAddressPrefix": r.dest, "destinationPortRange": "*",
		}
		if r.allow {
			p["access"] = "Allow"
		}
		if r.protocol != "" {
			p["protocol"] = strings.ToUpper(r.protocol[:1]) + r.protocol[1:]
			p["destinationPortRange"] = fmt.Sprintf("%d-%d", r.ports, r.portsLast)
		}
		rules = append(rules, object{"name": fmt.Sprintf("rule%d", i), "properties": p})
	}
	return object{
		"type": "Microsoft.Network/networkSecurityGroups", "name": name, "location": "westeurope",
		"properties": object{"securityRules": rules},
	}
}

func armInterface(name, subnet, address, group string) object {
	return object{
		"type": "Microsoft.Network/networkInterfaces", "name": name, "location": "westeurope",
		"properties": object{
			"networkSecurityGroup": object{"id": group},
			"ipConfigurations": []object{{"name": "ipconfig", "properties": object{
				"primary": true, "privateIPAddress": address, "privateIPAllocationMethod": "Static", "subnet": object{"id": subnet},
			}}},
		},
	}
}

// writePolicy writes the ARM documents of two NICs in two subnets, each NIC with a group of
// the rules.
func writePolicy(dir string, list []rule) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var subnets []object
	for _, name := range []string{"1", "3"} {
		subnets = append(subnets, object{"name": "subnet" + name, "properties": object{"addressPrefix": "10.0." + name + ".0/24"}})
	}
	for name, document := range map[string]object{
		"client": armGroup("client", "Outbound", list),
		"server": armGroup("server", "Inbound", list),
		"a-nic":  armInterface("a-nic", "vnet/subnet1", clientAddress, "client"),
		"b-nic":  armInterface("b-nic", "vnet/subnet3", serverAddress, "server"),
		"vnet": {
			"type": "Microsoft.Network/virtualNetworks", "name": "vnet", "location": "westeurope",
			"properties": object{"addressSpace": object{"addressPrefixes": []string{"10.0.0.0/16"}}, "subnets": subnets},
		},
	} {
		text, err := json.Marshal(document)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// openFlows holds the rules once behind ct(), for a bridge.
func openFlows(list []rule) string {
	var b strings.Builder
	b.WriteString("table=0,priority=10,arp,actions=NORMAL\n" +
		"table=0,priority=5,ip,actions=ct(table=1)\n" +
		"table=1,priority=60000,ct_state=+trk+est,ip,actions=NORMAL\n" +
		"table=1,priority=60000,ct_state=+trk+rel,ip,actions=NORMAL\n")
	for i, r := range list {
		protocol, ports := "ip", ""
		if r.protocol != "" {
			protocol = r.protocol
			// A range of two begins at an even port.
			ports = fmt.Sprintf(",tp_dst=%#x/%#x", r.ports, 0xffff&^(r.portsLast-r.ports))
		}
		actions := "drop"
		if r.allow {
			actions = "ct(commit),NORMAL"
		}
		fmt.Fprintf(&b, "table=1,priority=%d,ct_state=+trk+new,%s,nw_src=%s,nw_dst=%s%s,actions=%s\n", 50_000-i, protocol, r.source, r.dest, ports, actions)
	}
	return b.String()
}
