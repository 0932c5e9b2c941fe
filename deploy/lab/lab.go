// Package lab holds the built-in laboratory: the figure of Azure's document on
// network security groups, as ARM JSON and a configuration. Its probes send real
// traffic from every host to every other, and compare what passed with what the
// rules say. Its servers answer the probes, and whoever tries the lab by hand.
//
//	vnet1 10.0.0.0/16, fd00:db8:1::/48
//	  Subnet1 10.0.1.0/24, fd00:db8:1:1::/64, NSG1:   VM1 (NSG2 on its NIC), VM2
//	  Subnet2 10.0.2.0/24, fd00:db8:1:2::/64, no NSG: VM3 (NSG2 on its NIC)
//	  Subnet3 10.0.3.0/24, fd00:db8:1:3::/64, no NSG: VM4
//	internet
//	platform 168.63.129.16, 169.254.169.254: DNS and IMDS
//
// Every host has an address of each family; Hosts names them.
package lab

import (
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
)

//go:embed nsgd.yaml policy/*.json
var files embed.FS

//go:embed translation.yaml translation/*.json
var translation embed.FS

// Translation returns the files of a second lab with public IPs, a NAT gateway and a load
// balancer: the configuration translation.yaml and ARM documents in the folder translation.
func Translation() fs.FS { return translation }

// ConfigName names the configuration among Files, and in the folder that WriteTo fills.
const ConfigName = "nsgd.yaml"

// Files returns the lab's configuration (ConfigName) and, in the folder policy, its
// ARM documents, one resource a file. The configuration refers to policy by a
// relative path.
func Files() fs.FS { return files }

// WriteTo writes Files below dir, and makes dir when it is missing. It overwrites
// nothing: a file that exists already is an error.
func WriteTo(dir string) error {
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("lab: write to %s: %w", dir, err)
	}
	return nil
}

// PlatformNamespace holds the lab's platform, which stands for the Azure host below a virtual machine.
const PlatformNamespace = "nsgd-platform"

const internetName = "internet"

// Namespaces lists the namespaces that the lab makes.
func Namespaces() (list []string) {
	for _, h := range Hosts(IPv4) {
		list = append(list, h.Namespace)
	}
	return append(list, PlatformNamespace)
}

// Host is a host of the lab under one of its addresses.
type Host struct {
	Name      string
	Namespace string // its network namespace; empty: the caller's own
	Address   netip.Addr
}

func (h Host) String() string { return h.Name + " " + h.Address.String() }

// Family is an address family. The lab's hosts have an address of each.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// Family returns the family of the host's address.
func (h Host) Family() Family {
	if h.Address.Is4() {
		return IPv4
	}
	return IPv6
}

// Hosts returns the five hosts of the lab under their addresses of a family, as Files
// configures them.
func Hosts(f Family) []Host {
	list := []Host{
		{"VM1", "nsgd-vm1", netip.MustParseAddr("10.0.1.4")},
		{"VM2", "nsgd-vm2", netip.MustParseAddr("10.0.1.5")},
		{"VM3", "nsgd-vm3", netip.MustParseAddr("10.0.2.4")},
		{"VM4", "nsgd-vm4", netip.MustParseAddr("10.0.3.4")},
		{internetName, "nsgd-internet", netip.MustParseAddr("203.0.113.10")},
	}
	if f == IPv6 {
		for i, address := range []string{
			"fd00:db8:1:1::4", "fd00:db8:1:1::5", "fd00:db8:1:2::4", "fd00:db8:1:3::4", "2001:db8::10",
		} {
			list[i].Address = netip.MustParseAddr(address)
		}
	}
	return list
}

// AllHosts returns the hosts under each of their addresses, IPv4 first.
func AllHosts() []Host { return slices.Concat(Hosts(IPv4), Hosts(IPv6)) }
