// Package lab holds the built-in laboratory: the figure of Azure's document on
// network security groups as ARM JSON and a configuration, and probes that send
// real traffic from every host to every other and compare what the wire did
// with what the rules say.
//
//	vnet1 10.0.0.0/16
//	  Subnet1 10.0.1.0/24, NSG1:   VM1 10.0.1.4 (NSG2 on its NIC), VM2 10.0.1.5
//	  Subnet2 10.0.2.0/24, no NSG: VM3 10.0.2.4 (NSG2 on its NIC)
//	  Subnet3 10.0.3.0/24, no NSG: VM4 10.0.3.4
//	internet 203.0.113.10
package lab

import (
	"embed"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
)

//go:embed nsgd.yaml policy/*.json
var files embed.FS

// ConfigName is the name of the configuration among Files and below the folder
// that WriteTo fills.
const ConfigName = "nsgd.yaml"

// Files are the lab's configuration (ConfigName) and, in the folder policy, its
// ARM documents, one resource a file. The configuration names policy relative
// to itself.
func Files() fs.FS { return files }

// WriteTo writes Files below dir, which is made when it is missing. Files that
// exist already are an error, not overwritten.
func WriteTo(dir string) error {
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("lab: write to %s: %w", dir, err)
	}
	return nil
}

// Host is one end of the lab's traffic.
type Host struct {
	Name      string
	Namespace string // name of its network namespace; empty is the caller's own
	Address   netip.Addr
}

// Hosts are the five hosts of the lab, as Files configures them.
func Hosts() []Host {
	return []Host{
		{"VM1", "nsgd-vm1", netip.AddrFrom4([4]byte{10, 0, 1, 4})},
		{"VM2", "nsgd-vm2", netip.AddrFrom4([4]byte{10, 0, 1, 5})},
		{"VM3", "nsgd-vm3", netip.AddrFrom4([4]byte{10, 0, 2, 4})},
		{"VM4", "nsgd-vm4", netip.AddrFrom4([4]byte{10, 0, 3, 4})},
		{"internet", "nsgd-internet", netip.AddrFrom4([4]byte{203, 0, 113, 10})},
	}
}
