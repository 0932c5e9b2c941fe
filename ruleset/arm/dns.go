package arm

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// azureDNS is the NIC's word for Azure's own resolver, whatever the virtual network has.
const azureDNS = "AzureProvidedDNS"

// networkDNS reads the DNS servers of a virtual network.
func (f *fields) networkDNS() []netip.Addr {
	options, _ := lookup(f.values, "dhcpOptions").(map[string]any)
	return f.dnsServers(lookup(options, "dnsServers"))
}

// interfaceDNS reads what a NIC's machine is told of DNS. The applied servers are those of all NICs of an
// availability set, and what each of its machines gets.
func (f *fields) interfaceDNS(n *policy.NetworkInterface) {
	settings, _ := lookup(f.values, "dnsSettings").(map[string]any)
	if n.DNSServers = f.dnsServers(lookup(settings, "appliedDnsServers")); n.DNSServers == nil {
		n.DNSServers = f.dnsServers(lookup(settings, "dnsServers"))
	}
	if suffix, _ := lookup(settings, "internalDomainNameSuffix").(string); !isExpression(suffix) {
		n.DomainNameSuffix = suffix
	}
}

// dnsServers reads a list of servers, each once. No verdict hangs on it: an address that is not known leaves the
// policy usable, and has a warning.
func (f *fields) dnsServers(v any) (list []netip.Addr) {
	const field = "dnsServers"
	servers, ok := v.([]any)
	if !ok && v != nil {
		servers = []any{v}
	}
	for _, v := range servers {
		text, _ := v.(string)
		a, err := netip.ParseAddr(text)
		switch {
		case text == "":
			continue
		case isExpression(text):
			f.l.warn(f.newFault(CodePropertyNotRead, field, text, "the expression was not evaluated: no machine is told this DNS server"))
			continue
		case strings.EqualFold(text, azureDNS):
			a = policy.AzureDNS
		case err != nil || a.Zone() != "" || a.Is4In6():
			f.fault(CodeInvalidDNSServer, field, text, "allowed are IPv4 and IPv6 addresses")
			continue
		}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}
