package analysis_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go4.org/netipx"
)

func TestAddressesAreWrittenAsPeopleWriteThem(t *testing.T) {
	var names analysis.Names
	names.Add("Lab", prefixes("10.1.0.0/16", "fd00::/16"))
	names.Add("Web", prefixes("10.1.2.0/24", "192.0.2.0/24"))
	for _, tt := range []struct{ name, in, out, want string }{
		{"nothing", "", "", "nothing"},
		{"every IPv4 address", "0.0.0.0/0", "", "0.0.0.0/0"},
		{"every IPv6 address", "::/0", "", "::/0"},
		{"one address", "10.0.0.4/32", "", "10.0.0.4"},
		{"a prefix", "10.0.0.0/24", "", "10.0.0.0/24"},
		{"a range", "10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/25"},
		{"a range that is no prefix", "10.0.0.0/24", "10.0.0.255/32", "10.0.0.0-10.0.0.254"},
		{"a name", "10.1.0.0/16", "", "Lab"},
		{"a name of IPv6", "fd00::/16", "", "Lab"},
		{"a name without a part", "10.1.0.0/16", "10.1.3.0/24", "Lab except 10.1.3.0/24"},
		{"all without a name", "0.0.0.0/0", "10.1.0.0/16", "everything except Lab"},
		{"all without an end", "0.0.0.0/0", "255.255.255.255/32", "0.0.0.0-255.255.255.254"},
		{"all of IPv6 without a part", "::/0", "2001:db8::/32", "everything except 2001:db8::/32"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b netipx.IPSetBuilder
			if tt.in != "" {
				b.AddPrefix(netip.MustParsePrefix(tt.in))
			}
			if tt.out != "" {
				b.RemovePrefix(netip.MustParsePrefix(tt.out))
			}
			set, err := b.IPSet()
			if err != nil {
				t.Fatal(err)
			}
			if got := names.Text(set.Ranges()); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	for _, tt := range []struct{ name, prefix, out, want string }{
		{"a prefix without parts", "128.0.0.0/1", "147.1.0.0/16 200.2.3.4/32 201.2.3.4/32", "128.0.0.0/1 except 147.1.0.0/16, 200.2.3.4, 201.2.3.4"},
		{"a prefix without many parts", "128.0.0.0/1", "147.1.0.0/16 200.2.3.4/32 201.2.3.4/32 202.2.3.4/32 203.2.3.4/32", "128.0.0.0/1 except 147.1.0.0/16, 200.2.3.4, 201.2.3.4 and 2 more"},
		{"a prefix without one part", "192.0.2.0/25", "192.0.2.7/32", "192.0.2.0/25 except 192.0.2.7"},
		{"a prefix of IPv6 without parts", "2001:db8::/32", "2001:db8:1::/48 2001:db8:3::/48", "2001:db8::/32 except 2001:db8:1::/48, 2001:db8:3::/48"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b netipx.IPSetBuilder
			b.AddPrefix(netip.MustParsePrefix(tt.prefix))
			for _, p := range prefixes(strings.Fields(tt.out)...) {
				b.RemovePrefix(p)
			}
			set, err := b.IPSet()
			if err != nil {
				t.Fatal(err)
			}
			if got := names.Text(set.Ranges()); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	var b netipx.IPSetBuilder
	for i := range 6 {
		b.Add(netip.AddrFrom4([4]byte{10, 0, 0, byte(i * 2)}))
	}
	set, _ := b.IPSet()
	if got, want := names.Text(set.Ranges()), "10.0.0.0, 10.0.0.2, 10.0.0.4, 10.0.0.6 and 2 more"; got != want {
		t.Errorf("a long list: %q, want %q", got, want)
	}
}

func TestPortsAreWrittenAsPeopleWriteThem(t *testing.T) {
	ports := func(list ...uint16) (ranges []ruleset.PortRange) {
		for i := 0; i < len(list); i += 2 {
			ranges = append(ranges, ruleset.PortRange{First: list[i], Last: list[i+1]})
		}
		return ranges
	}
	for _, tt := range []struct {
		name string
		box  analysis.Box
		want string
	}{
		{"one port", analysis.Box{Protocol: "TCP", DestinationPorts: ports(80, 80)}, " port 80"},
		{"ranges", analysis.Box{Protocol: "TCP", DestinationPorts: ports(20, 21, 80, 80)}, " port 20-21,80"},
		{"all but one", analysis.Box{Protocol: "UDP", DestinationPorts: ports(0, 52, 54, 65535)}, " port all except 53"},
		{"all but many", analysis.Box{Protocol: "UDP", DestinationPorts: ports(0, 0, 2, 2, 4, 4, 6, 6, 8, 65535)}, " port all except 1,3,5 and 1 more"},
		{"all above", analysis.Box{Protocol: "UDP", DestinationPorts: ports(1024, 65535)}, " port 1024-65535"},
		{"all source ports but two", analysis.Box{Protocol: "UDP", SourcePorts: ports(0, 52, 54, 99, 101, 65535)}, " from port all except 53,100"},
		{"a long list", analysis.Box{Protocol: "TCP", DestinationPorts: ports(1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11)}, " port 1,3,5,7 and 2 more"},
		{"all types but one", analysis.Box{Protocol: "ICMP", ICMPTypes: ports(0, 7, 9, 255)}, " type all except 8"},
		{"all types", analysis.Box{Protocol: "ICMP", ICMPTypes: ports(0, 255)}, ""},
		{"all ports", analysis.Box{Protocol: "TCP", SourcePorts: ports(0, 65535), DestinationPorts: ports(0, 65535)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := tt.box.String(), tt.box.Protocol+" nothing -> nothing"+tt.want; got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
