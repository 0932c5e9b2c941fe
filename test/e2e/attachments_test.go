package e2e

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// Hosts that the lab does not have, and the lab's under their IPv6 addresses.
var (
	subnet3Host = lab.Host{Name: "a host of Subnet3", Namespace: "nsgd-subnet3", Address: netip.MustParseAddr("10.0.3.9")}
	ownHost     = lab.Host{Name: "the daemon's own namespace", Address: netip.MustParseAddr("10.0.3.9")}
	platform    = lab.Host{Name: "the platform", Namespace: "nsgd-platform", Address: netip.MustParseAddr("168.63.129.16")}

	vm1v6      = lab.Host{Name: "VM1", Namespace: vm1.Namespace, Address: netip.MustParseAddr("fd00:1:0:1::4")}
	vm4v6      = lab.Host{Name: "VM4", Namespace: vm4.Namespace, Address: netip.MustParseAddr("fd00:1:0:3::4")}
	internetV6 = lab.Host{Name: "internet", Namespace: internet.Namespace, Address: netip.MustParseAddr("2001:db8::10")}
)

// startAttached runs the lab with other attachments than its own.
func startAttached(t *testing.T, attachments string, edit func(dir string)) *daemon {
	t.Helper()
	needWorld(t)
	dir := configure(t, labPolicy())
	writeFile(t, filepath.Join(dir, lab.ConfigName), "policy: [policy/]\nattachments:\n"+attachments)
	if edit != nil {
		edit(dir)
	}
	return startIn(t, dir)
}

const (
	attachVM1      = "- {networkInterface: vm1-nic, netns: nsgd-vm1, create: true, device: eth0}\n"
	attachVM4      = "- {networkInterface: vm4-nic, netns: nsgd-vm4, create: true, device: eth0}\n"
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
		"- {subnet: vnet1/Subnet3, netns: nsgd-subnet3, create: true, device: eth0, addresses: [10.0.3.9/24]}\n", nil)
	carriesAsNSG1And2Say(t, subnet3Host, vm1, internet)
	mustPing(t, subnet3Host, vm1)
	mustNotPing(t, internet, vm1)
}

func TestSubnetAttachmentAppliesTheGroupOfItsSubnet(t *testing.T) {
	host := lab.Host{Name: "a host of Subnet1", Namespace: "nsgd-subnet1", Address: netip.MustParseAddr("10.0.1.9")}
	startAttached(t, attachVM1+attachInternet+
		"- {subnet: Subnet1, netns: nsgd-subnet1, create: true, device: eth0, addresses: [10.0.1.9/24]}\n", nil)
	for _, port := range []uint16{80, 8080} {
		serveTCP(t, host, port)
		mustConnect(t, vm1, host, port)
	}
	mustConnect(t, internet, host, 80)
	before := scrape(t)
	mustNotConnect(t, internet, host, 8080)
	deniedBy(t, before, deniedIn(nsg1), nsg2)
}

func TestAttachmentInTheDaemonsOwnNamespaceCarriesTraffic(t *testing.T) {
	startAttached(t, attachVM1+"- {subnet: vnet1/Subnet3, device: nsgd-own, addresses: [10.0.3.9/24]}\n", nil)
	serveTCP(t, vm1, 8080)
	serveTCP(t, ownHost, 8080)
	mustConnect(t, ownHost, vm1, 8080)
	mustConnect(t, vm1, ownHost, 8080)
	mustPing(t, ownHost, vm1)
}

func TestPlatformAttachmentCarriesTraffic(t *testing.T) {
	startAttached(t, attachVM1+"- {platform: true, netns: nsgd-platform, create: true, addresses: [168.63.129.16/32]}\n", nil)
	serveTCP(t, platform, 80)
	mustConnect(t, vm1, platform, 80)
	// AzureLoadBalancer, which AllowAzureLoadBalancerInBound lets in, is this address.
	serveTCP(t, vm1, 8080)
	mustConnect(t, platform, vm1, 8080)
}

func TestDualStackPolicyCarriesBothFamilies(t *testing.T) {
	startAttached(t, attachVM1+attachVM4+attachInternet, func(dir string) { addIPv6(t, dir) })
	carriesAsNSG1And2Say(t, vm4, vm1, internet)
	carriesAsNSG1And2Say(t, vm4v6, vm1v6, internetV6)
}

// addIPv6 gives the lab's virtual network, its subnets and VM1 and VM4 addresses of the
// other family.
func addIPv6(t *testing.T, dir string) {
	t.Helper()
	editDocument(t, dir, "vnet1", func(properties map[string]any) {
		space := properties["addressSpace"].(map[string]any)
		space["addressPrefixes"] = append(space["addressPrefixes"].([]any), "fd00:1::/48")
		prefixes := []string{"fd00:1:0:1::/64", "fd00:1:0:2::/64", "fd00:1:0:3::/64"}
		for i, s := range properties["subnets"].([]any) {
			subnet := s.(map[string]any)["properties"].(map[string]any)
			subnet["addressPrefixes"] = []any{subnet["addressPrefix"], prefixes[i]}
			delete(subnet, "addressPrefix")
		}
	})
	for name, address := range map[string]netip.Addr{"vm1-nic": vm1v6.Address, "vm4-nic": vm4v6.Address} {
		editDocument(t, dir, name, func(properties map[string]any) {
			list := properties["ipConfigurations"].([]any)
			subnet := list[0].(map[string]any)["properties"].(map[string]any)["subnet"]
			properties["ipConfigurations"] = append(list, map[string]any{"name": "ipconfig2", "properties": map[string]any{
				"privateIPAddress": address.String(), "privateIPAddressVersion": "IPv6",
				"privateIPAllocationMethod": "Static", "primary": false, "subnet": subnet,
			}})
		})
	}
}
