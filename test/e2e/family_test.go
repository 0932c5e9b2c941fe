package e2e

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// family is the lab's hosts under their addresses of one family.
type family struct {
	lab.Family
	vm1, vm2, vm3, vm4, internet lab.Host

	ipHeader int    // bytes of an IP header without options or extension headers
	subnet1  string // prefix of Subnet1
}

var (
	ipv4     = familyOf(lab.IPv4, 20, "10.0.1.0/24")
	ipv6     = familyOf(lab.IPv6, 40, "fd00:db8:1:1::/64")
	families = []family{ipv4, ipv6}
)

func familyOf(f lab.Family, ipHeader int, subnet1 string) family {
	h := lab.Hosts(f)
	return family{f, h[0], h[1], h[2], h[3], h[4], ipHeader, subnet1}
}

// The hosts for tests to which the family makes no difference.
var vm1, vm3, vm4, internet = ipv4.vm1, ipv4.vm3, ipv4.vm4, ipv4.internet

// eachFamily runs a test as a subtest for each family, one after the other and against
// the same daemon, since they share its counters.
func eachFamily(t *testing.T, test func(t *testing.T, f family)) {
	for _, f := range families {
		t.Run(f.String(), func(t *testing.T) { test(t, f) })
	}
}

// endpoint is a host's address and a port as nsgctl takes them.
func endpoint(h lab.Host, port uint16) string { return netip.AddrPortFrom(h.Address, port).String() }
