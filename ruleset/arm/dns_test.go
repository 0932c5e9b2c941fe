package arm

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestWhatAMachineIsToldOfDNS(t *testing.T) {
	tests := []struct {
		name, network, nic string // dhcpOptions, dnsSettings
		ofNetwork, ofNIC   []string
		suffix             string
	}{
		{"nothing is set", `{}`, `{}`, nil, nil, ""},
		{"the network has servers, the NIC none", `{"dnsServers": ["10.0.0.4", "fd00::4"]}`, `{"dnsServers": []}`, []string{"10.0.0.4", "fd00::4"}, nil, ""},
		{"the NIC has its own and a domain", `{}`, `{"dnsServers": ["10.0.0.5"], "internalDomainNameSuffix": "abc.ax.internal.cloudapp.net"}`,
			nil, []string{"10.0.0.5"}, "abc.ax.internal.cloudapp.net"},
		{"an availability set shares the servers of its NICs", `{}`, `{"dnsServers": ["10.0.0.5"], "appliedDnsServers": ["10.0.0.5", "10.0.0.6"]}`,
			nil, []string{"10.0.0.5", "10.0.0.6"}, ""},
		{"the NIC goes back to Azure's resolver", `{"dnsServers": ["10.0.0.4"]}`, `{"dnsServers": ["AzureProvidedDNS"]}`,
			[]string{"10.0.0.4"}, []string{"168.63.129.16"}, ""},
		{"a server that is named twice counts once", `{"dnsServers": ["10.0.0.4", "10.0.0.4"]}`, `{}`, []string{"10.0.0.4"}, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := parse(t, dnsDocument(tt.network, tt.nic))
			v, nic := set.VirtualNetworks[0], set.NetworkInterfaces[0]
			if !slices.Equal(texts(v.DNSServers), tt.ofNetwork) || !slices.Equal(texts(nic.DNSServers), tt.ofNIC) || nic.DomainNameSuffix != tt.suffix {
				t.Errorf("network %v, NIC %v, domain %q", v.DNSServers, nic.DNSServers, nic.DomainNameSuffix)
			}
		})
	}
}

func dnsDocument(network, nic string) string {
	return fmt.Sprintf(`[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "addressSpace": {"addressPrefixes": ["10.0.0.0/8"]},
		"dhcpOptions": %s, "subnets": [{"name": "s", "addressPrefix": "10.0.0.0/16"}]},
		{"type": "Microsoft.Network/networkInterfaces", "name": "n", "dnsSettings": %s, "ipConfigurations": [%s]}]`,
		network, nic, configuration("10.0.0.4", "s", ""))
}

func texts(addresses []netip.Addr) (list []string) {
	for _, a := range addresses {
		list = append(list, a.String())
	}
	return list
}
