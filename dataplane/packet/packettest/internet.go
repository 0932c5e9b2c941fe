package packettest

import "net/netip"

// noHosts are the ranges without a host on the internet, and hosts what lies within them and has
// some all the same. Documentation ranges count as the internet.
var (
	noHosts = []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
		"::/3", "4000::/2", "8000::/1", "2001::/23",
	}
	hosts = []string{
		"192.0.0.9/32", "192.0.0.10/32", "64:ff9b::/96", "2001::/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128",
		"2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28",
	}
)

// OnInternet is the slow, plain answer to whether a host on the internet can have an address: by
// the ranges, and by what owned says of it and of the IPv4 addresses that it embeds.
func OnInternet(a netip.Addr, owned func(netip.Addr) bool) bool {
	if !a.IsValid() || a.Is4In6() || owned(a) || within(noHosts, a) && !within(hosts, a) {
		return false
	}
	b := a.As16()
	inner := func(b []byte) bool { return OnInternet(netip.AddrFrom4([4]byte(b)), owned) }
	switch {
	case within([]string{"2002::/16"}, a):
		return inner(b[2:6])
	case within([]string{"64:ff9b::/96"}, a):
		return inner(b[12:])
	case within([]string{"2001::/32"}, a):
		return inner(b[4:8]) && inner([]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	return true
}

func within(prefixes []string, a netip.Addr) bool {
	for _, p := range prefixes {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}
