package ask

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/topology"
)

func TestEndsAreFoundByNameOrRefusedWithCandidates(t *testing.T) {
	s, err := topology.Build(figureOfTheSeed(), nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := NewBetween(s, 0)
	for _, c := range []struct{ name, text, holds, fault string }{
		{name: "a network interface", text: "nic:vm1-nic", holds: "10.0.1.4"},
		{name: "a bare name", text: "vm1-nic", holds: "10.0.1.4"},
		{name: "names have no case", text: "NIC:VM1-NIC", holds: "10.0.1.4"},
		{name: "a subnet", text: "subnet:vnet1/Subnet1", holds: "10.0.1.77"},
		{name: "a subnet by its bare name", text: "Subnet1", holds: "10.0.1.77"},
		{name: "a virtual network", text: "vnet:vnet1", holds: "10.0.3.4"},
		{name: "an address", text: "203.0.113.10", holds: "203.0.113.10"},
		{name: "a prefix", text: "203.0.113.0/24", holds: "203.0.113.99"},
		{name: "the internet", text: "internet", holds: "203.0.113.10"},
		{name: "a tag in any case", text: "tag:internet", holds: "203.0.113.10"},
		{name: "VirtualNetwork is what any subnet takes it for", text: "tag:VirtualNetwork", holds: "10.0.3.4"},
		{name: "a misspelled name", text: "vm1-nci", fault: "near is nic:vm1-nic"},
		{name: "a misspelled kind", text: "nics:vm1-nic", fault: "allowed are internet, nic:NAME"},
		{name: "an unknown network interface", text: "nic:nosuch", fault: "the policy has vm1-nic"},
		{name: "an unknown tag", text: "tag:Nosuch", fault: "allowed are AzureLoadBalancer"},
		{name: "a prefix with bits behind its length", text: "10.0.1.4/24", fault: "10.0.1.0/24"},
	} {
		end, err := b.End(c.text)
		switch {
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %q gives %v, want an error with %q", c.name, c.text, err, c.fault)
		case c.fault == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.fault == "" && !end.addresses.Contains(netip.MustParseAddr(c.holds)):
			t.Errorf("%s: %q lacks %s", c.name, c.text, c.holds)
		}
	}
}
