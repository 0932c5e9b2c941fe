package e2e

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// machine is a host that the lab does not have.
type machine struct {
	name, namespace string
	addresses       map[lab.Family]string
}

// in is the machine under its address of a family.
func (m machine) in(f family) lab.Host {
	return lab.Host{Name: m.name, Namespace: m.namespace, Address: netip.MustParseAddr(m.addresses[f.Family])}
}

var (
	subnet1Host = machine{"a host of Subnet1", "nsgd-subnet1", map[lab.Family]string{lab.IPv4: "10.0.1.9", lab.IPv6: "fd00:db8:1:1::9"}}
	subnet3Host = machine{"a host of Subnet3", "nsgd-subnet3", map[lab.Family]string{lab.IPv4: "10.0.3.9", lab.IPv6: "fd00:db8:1:3::9"}}
	ownHost     = machine{"the daemon's own namespace", "", subnet3Host.addresses}
	platform    = lab.Host{Name: "the platform", Namespace: "nsgd-platform", Address: netip.MustParseAddr("168.63.129.16")}
)

// startAttached runs the lab with other attachments than its own.
func startAttached(t *testing.T, attachments string) *daemon {
	t.Helper()
	needWorld(t)
	dir := configure(t, labPolicy())
	writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nattachments:\n"+attachments)
	return startIn(t, dir)
}

const (
	attachVM1      = "- {networkInterface: vm1-nic, netns: nsgd-vm1, create: true, device: eth0}\n"
	attachInternet = "- {internet: true, netns: nsgd-internet, create: true, device: eth0, addresses: [203.0.113.10/24, '2001:db8::10/64']}\n"
)

// carriesAsNSG1And2Say checks that a host inside the virtual network and VM1 reach each
// other, and that the internet reaches VM1 only on port 80, and of the host what its
// NSGs, none, let pass.
func carriesAsNSG1And2Say(t *testing.T, host, vm1, internet lab.Host) {
	t.Helper()
	for _, h := range []lab.Host{host, vm1, internet} {
		serveTCP(t, h, 80)
		serveTCP(t, h, 8080)
	}
	for _, port := range []uint16{80, 8080} {
		mustConnect(t, host, vm1, port)
		mustConnect(t, vm1, host, port)
		mustConnect(t, vm1, internet, port)
		mustConnect(t, internet, host, port)
	}
	mustConnect(t, internet, vm1, 80)
	mustNotConnect(t, internet, vm1, 8080)
	receiver := bindUDP(t, vm1, 0)
	send(t, bindUDP(t, host, 0), address(receiver), 3, 100)
	receive(t, receiver, 3)
	send(t, bindUDP(t, internet, 0), address(receiver), 3, 100)
	receiveNothing(t, receiver)
}

func TestSubnetAttachmentCarriesTheTrafficOfItsMachines(t *testing.T) {
	startAttached(t, attachVM1+attachInternet+
		"- {subnet: vnet1/Subnet3, netns: nsgd-subnet3, create: true, device: eth0, addresses: [10.0.3.9/24, 'fd00:db8:1:3::9/64']}\n")
	eachFamily(t, func(t *testing.T, f family) {
		carriesAsNSG1And2Say(t, subnet3Host.in(f), f.vm1, f.internet)
		mustPing(t, subnet3Host.in(f), f.vm1)
		mustNotPing(t, f.internet, f.vm1)
	})
}

func TestSubnetAttachmentAppliesTheGroupOfItsSubnet(t *testing.T) {
	startAttached(t, attachVM1+attachInternet+
		"- {subnet: Subnet1, netns: nsgd-subnet1, create: true, device: eth0, addresses: [10.0.1.9/24, 'fd00:db8:1:1::9/64']}\n")
	eachFamily(t, func(t *testing.T, f family) {
		host := subnet1Host.in(f)
		for _, port := range []uint16{80, 8080} {
			serveTCP(t, host, port)
			mustConnect(t, f.vm1, host, port)
		}
		mustConnect(t, f.internet, host, 80)
		before := scrape(t)
		mustNotConnect(t, f.internet, host, 8080)
		deniedBy(t, before, deniedIn(nsg1), nsg2)
	})
}

func TestAttachmentInTheDaemonsOwnNamespaceCarriesTraffic(t *testing.T) {
	startAttached(t, attachVM1+"- {subnet: vnet1/Subnet3, device: nsgd-own, addresses: [10.0.3.9/24, 'fd00:db8:1:3::9/64']}\n")
	eachFamily(t, func(t *testing.T, f family) {
		host := ownHost.in(f)
		serveTCP(t, f.vm1, 8080)
		serveTCP(t, host, 8080)
		mustConnect(t, host, f.vm1, 8080)
		mustConnect(t, f.vm1, host, 8080)
		mustPing(t, host, f.vm1)
	})
}

func TestPlatformAttachmentCarriesTraffic(t *testing.T) {
	startAttached(t, attachVM1+"- {platform: true, netns: nsgd-platform, create: true, addresses: [168.63.129.16/32]}\n")
	serveTCP(t, platform, 80)
	mustConnect(t, vm1, platform, 80)
	// AzureLoadBalancer, which AllowAzureLoadBalancerInBound lets in, is this address.
	serveTCP(t, vm1, 8080)
	mustConnect(t, platform, vm1, 8080)
}
