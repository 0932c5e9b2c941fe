package platform

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// domain ends the names that Azure gives machines.
const domain = "internal.cloudapp.net"

// maxAnswers bounds the addresses of one name.
const maxAnswers = 16

// directory finds NICs by address and by machine.
type directory struct {
	byAddress map[netip.Addr]*policy.NetworkInterface // nil where several networks have the address
	byName    map[string][]*policy.NetworkInterface   // of the machine, in lower case
}

func newDirectory(set *policy.Set) *directory {
	d := &directory{map[netip.Addr]*policy.NetworkInterface{}, map[string][]*policy.NetworkInterface{}}
	for _, nic := range set.NetworkInterfaces {
		name := strings.ToLower(machineName(nic))
		d.byName[name] = append(d.byName[name], nic)
		for i := range nic.IPConfigurations {
			a := nic.IPConfigurations[i].Address
			if _, twice := d.byAddress[a]; twice {
				d.byAddress[a] = nil
				continue
			}
			d.byAddress[a] = nic
		}
	}
	return d
}

// machineName is the virtual machine's name, else that of the NIC, without the ending -nic.
func machineName(nic *policy.NetworkInterface) string {
	if nic.VirtualMachineID != "" {
		return policy.MachineName(nic.VirtualMachineID)
	}
	return strings.TrimSuffix(nic.Name, "-nic")
}

func network(nic *policy.NetworkInterface) *policy.VirtualNetwork {
	return nic.IPConfigurations[0].Subnet.VirtualNetwork
}

// machine finds the NICs that a name means to an asker: those of its virtual network alone, as in Azure. internal
// reports a name of Azure's internal domain, or one without a domain.
func (d *directory) machine(asker *policy.NetworkInterface, name string) (nics []*policy.NetworkInterface, internal bool) {
	host, rest, _ := strings.Cut(strings.ToLower(strings.TrimSuffix(name, ".")), ".")
	internal = rest == "" || rest == domain || strings.HasSuffix(rest, "."+domain)
	for _, nic := range d.byName[host] {
		own := rest == "" || rest == domain || rest == strings.ToLower(nic.DomainNameSuffix)
		if own && network(nic) == network(asker) {
			nics = append(nics, nic)
		}
	}
	return nics, internal
}

// addresses are the private addresses of NICs of one family: the primary one of IPv4, and each of IPv6.
func addresses(nics []*policy.NetworkInterface, ipv6 bool) (list []netip.Addr) {
	for _, nic := range nics {
		for i := range nic.IPConfigurations {
			c := &nic.IPConfigurations[i]
			if c.Address.Is6() == ipv6 && (ipv6 || c.Primary) && len(list) < maxAnswers {
				list = append(list, c.Address)
			}
		}
	}
	return list
}

// reverse finds the machine that a name of in-addr.arpa asks for, within the asker's virtual network. internal reports
// an address of that network.
func (d *directory) reverse(asker *policy.NetworkInterface, name string) (machine string, internal bool) {
	digits, found := strings.CutSuffix(strings.ToLower(name), ".in-addr.arpa.")
	labels := strings.Split(digits, ".")
	if !found || len(labels) != 4 {
		return "", false
	}
	slices.Reverse(labels)
	a, err := netip.ParseAddr(strings.Join(labels, "."))
	if err != nil {
		return "", false
	}
	internal = slices.ContainsFunc(network(asker).AddressSpace, func(p netip.Prefix) bool { return p.Contains(a) })
	if nic := d.byAddress[a]; nic != nil && network(nic) == network(asker) {
		return strings.ToLower(machineName(nic)) + "." + domain + ".", true
	}
	return "", internal
}
