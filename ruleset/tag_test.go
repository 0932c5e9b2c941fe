package ruleset

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func TestInternetBeginsAsAzureDocumentsIt(t *testing.T) {
	want := prefixes("1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6")
	if got := InternetPrefixes(nil); !slices.Equal(got[:len(want)], want) {
		t.Errorf("begins with %v, want %v", got[:len(want)], want)
	}
}

func TestInternetPrefixes(t *testing.T) {
	exclude := prefixes("20.0.0.0/14", "20.1.0.0/16", "8.8.8.8/32", "10.0.0.0/16", "2001:db8::/32")
	internet := InternetPrefixes(exclude)
	tests := []struct {
		name    string
		address string
		want    bool
	}{
		{"a public address", "203.0.113.10", true},
		{"a public IPv6 address", "2606:4700::1111", true},
		{"the last address before a hole", "19.255.255.255", true},
		{"the first of a hole", "20.0.0.0", false},
		{"the last of a hole", "20.3.255.255", false},
		{"the first behind a hole", "20.4.0.0", true},
		{"a hole of one address", "8.8.8.8", false},
		{"the neighbour of that hole", "8.8.8.9", true},
		{"a private address outside the network", "172.31.0.100", false},
		{"the address beside the private block", "172.32.0.0", true},
		{"carrier-grade NAT space", "100.64.0.1", false},
		{"loopback", "127.0.0.1", false},
		{"multicast", "224.0.0.1", false},
		{"the broadcast address", "255.255.255.255", false},
		{"this network", "0.0.0.0", false},
		{"the network's own IPv6 space", "2001:db8::1", false},
		{"a unique local IPv6 address", "fd00::1", false},
		{"a link-local IPv6 address", "fe80::1", false},
		{"the platform's address", "168.63.129.16", true},
		{"a link-local address", "169.254.1.1", false},
		{"the first documentation range", "192.0.2.1", false},
		{"the second documentation range", "198.51.100.1", true},
		{"protocol assignments", "192.0.0.8", true},
		{"the old 6to4 relays", "192.88.99.1", true},
		{"the first benchmark address", "198.18.0.0", false},
		{"the last benchmark address", "198.19.255.255", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := containsAddr(internet, netip.MustParseAddr(tt.address)); got != tt.want {
				t.Errorf("%s: %v, want %v", tt.address, got, tt.want)
			}
		})
	}
	t.Run("the platform's address stays in beside VirtualNetwork, which has it too", func(t *testing.T) {
		if got := InternetPrefixes(VirtualNetworkPrefixes(prefixes("10.0.0.0/16"))); !slices.Contains(got, netip.MustParsePrefix("168.0.0.0/8")) {
			t.Errorf("got %v", got)
		}
	})
	t.Run("nothing is left when everything is excluded", func(t *testing.T) {
		if got := InternetPrefixes(prefixes("0.0.0.0/0", "::/0")); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

func containsAddr(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

func randomPrefix(r *rand.Rand) netip.Prefix {
	if r.IntN(3) == 0 {
		a := [16]byte{0: 0x20 | byte(r.IntN(8)), 1: byte(r.IntN(4)), 2: byte(r.IntN(4))}
		return netip.PrefixFrom(netip.AddrFrom16(a), 3+r.IntN(30)).Masked()
	}
	a := [4]byte{byte(r.IntN(256)), byte(r.IntN(4)), byte(r.IntN(4)), byte(r.IntN(4))}
	return netip.PrefixFrom(netip.AddrFrom4(a), 4+r.IntN(29)).Masked()
}

// An address is in the expansion if and only if it is in the whole and in no hole. No two
// prefixes of the expansion could be one.
func TestInternetPrefixesAgainstMembership(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var exclude []netip.Prefix
		for range r.IntN(12) {
			exclude = append(exclude, randomPrefix(r))
		}
		got := InternetPrefixes(exclude)
		for i := 1; i < len(got); i++ {
			if got[i-1].Compare(got[i]) >= 0 || got[i-1].Overlaps(got[i]) {
				t.Fatalf("%v and %v are out of order or overlap (without %v)", got[i-1], got[i], exclude)
			}
			if p := got[i-1]; p.Bits() == got[i].Bits() && p.Bits() > 0 && netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked().Contains(got[i].Addr()) {
				t.Fatalf("%v and %v are one prefix (without %v)", p, got[i], exclude)
			}
		}
		for range 200 {
			a := randomPrefix(r).Addr()
			want := !containsAddr(exclude, a)
			if a.Is4() {
				want = want && !containsAddr(notInternet, a)
			} else {
				want = want && globalIPv6.Contains(a)
			}
			if containsAddr(got, a) != want {
				t.Fatalf("%v: member %v, want %v (without %v)", a, !want, want, exclude)
			}
		}
	}
}

func TestVirtualNetworkPrefixes(t *testing.T) {
	tests := []struct {
		name        string
		space, want []netip.Prefix
	}{
		{"a network alone has its space and the platform's address", prefixes("10.1.0.0/24"), prefixes("10.1.0.0/24", "168.63.129.16/32")},
		{"no network has the platform's address", nil, prefixes("168.63.129.16/32")},
		{"spaces are sorted, IPv4 first, and contained ones left out",
			prefixes("fd00::/48", "10.2.0.0/16", "10.0.0.0/16", "10.2.3.0/24"),
			prefixes("10.0.0.0/16", "10.2.0.0/16", "168.63.129.16/32", "fd00::/48")},
		{"a default route takes the platform's address in", prefixes("0.0.0.0/0"), prefixes("0.0.0.0/0")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := VirtualNetworkPrefixes(tt.space); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := AzureLoadBalancerPrefixes(); !slices.Equal(got, prefixes("168.63.129.16/32", "fe80::1234:5678:9abc/128")) {
		t.Errorf("AzureLoadBalancer is %v", got)
	}
}
