package topology

// specialPurpose says which addresses a host on the internet can have. The last block that holds an
// address decides; an address without one has no host there.
//
// The blocks are those of IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890, and
// the RFCs at each block), with the column "Globally Reachable". Three things differ:
//   - Multicast is no part of these registries.
//   - The documentation ranges are let in: laboratories have nothing else to stand for the internet.
//     Of these, Azure's tag Internet lacks 192.0.2.0/24, as Azure has recorded it.
//   - Ranges that embed an IPv4 address are let in where embedded finds that address admissible.
//
// https://www.iana.org/assignments/iana-ipv4-special-registry
// https://www.iana.org/assignments/iana-ipv6-special-registry
var specialPurpose = []struct {
	prefix   string
	internet bool
	name     string
}{
	{"0.0.0.0/0", true, "IPv4 unicast"},
	{"0.0.0.0/8", false, "this network (RFC 791)"},
	{"10.0.0.0/8", false, "private use (RFC 1918)"},
	{"100.64.0.0/10", false, "shared address space (RFC 6598)"},
	{"127.0.0.0/8", false, "loopback (RFC 1122)"},
	{"169.254.0.0/16", false, "link local (RFC 3927)"},
	{"172.16.0.0/12", false, "private use (RFC 1918)"},
	{"192.0.0.0/24", false, "IETF protocol assignments (RFC 6890)"},
	{"192.0.0.9/32", true, "Port Control Protocol anycast (RFC 7723)"},
	{"192.0.0.10/32", true, "TURN anycast (RFC 8155)"},
	{"192.0.2.0/24", true, "documentation (RFC 5737)"},
	{"192.31.196.0/24", true, "AS112-v4 (RFC 7535)"},
	{"192.52.193.0/24", true, "AMT (RFC 7450)"},
	{"192.88.99.0/24", false, "deprecated 6to4 relay anycast (RFC 7526)"},
	{"192.168.0.0/16", false, "private use (RFC 1918)"},
	{"192.175.48.0/24", true, "direct delegation AS112 service (RFC 7534)"},
	{"198.18.0.0/15", false, "benchmarking (RFC 2544)"},
	{"198.51.100.0/24", true, "documentation (RFC 5737)"},
	{"203.0.113.0/24", true, "documentation (RFC 5737)"},
	{"224.0.0.0/4", false, "multicast (RFC 5771)"},
	{"240.0.0.0/4", false, "reserved and limited broadcast (RFC 1112, RFC 8190)"},

	{"2000::/3", true, "IPv6 global unicast (RFC 4291)"},
	{"64:ff9b::/96", true, "IPv4-IPv6 translation (RFC 6052)"},
	{"2001::/23", false, "IETF protocol assignments (RFC 2928)"},
	{"2001::/32", true, "Teredo (RFC 4380)"},
	{"2001:1::1/128", true, "Port Control Protocol anycast (RFC 7723)"},
	{"2001:1::2/128", true, "TURN anycast (RFC 8155)"},
	{"2001:1::3/128", true, "DNS-SD service registration anycast (RFC 9665)"},
	{"2001:3::/32", true, "AMT (RFC 7450)"},
	{"2001:4:112::/48", true, "AS112-v6 (RFC 7535)"},
	{"2001:20::/28", true, "ORCHIDv2 (RFC 7343)"},
	{"2001:30::/28", true, "drone remote identification (RFC 9374)"},
	{"2001:db8::/32", true, "documentation (RFC 3849)"},
	{"2002::/16", true, "6to4 (RFC 3056)"},
	{"2620:4f:8000::/48", true, "direct delegation AS112 service (RFC 7534)"},
	{"3fff::/20", true, "documentation (RFC 9637)"},
	// Beyond 2000::/3, and so without a host on the internet: ::/128, ::1/128, ::ffff:0:0/96,
	// 64:ff9b:1::/48, 100::/64, 100:0:0:1::/64, 5f00::/16, fc00::/7, fe80::/10. Within
	// 2001::/23: 2001:2::/48 and 2001:10::/28.
}
