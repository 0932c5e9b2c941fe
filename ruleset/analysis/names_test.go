package analysis_test

import (
	"net/netip"
	"testing"

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
		{"a name without a part", "10.1.0.0/16", "10.1.3.0/24", "Lab but 10.1.3.0/24"},
		{"all without a name", "0.0.0.0/0", "10.1.0.0/16", "everything but Lab"},
		{"all without an end", "0.0.0.0/0", "255.255.255.255/32", "0.0.0.0-255.255.255.254"},
		{"all of IPv6 without a part", "::/0", "2001:db8::/32", "everything but 2001:db8::/32"},
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
	var b netipx.IPSetBuilder
	for i := range 6 {
		b.Add(netip.AddrFrom4([4]byte{10, 0, 0, byte(i * 2)}))
	}
	set, _ := b.IPSet()
	if got, want := names.Text(set.Ranges()), "10.0.0.0, 10.0.0.2, 10.0.0.4, 10.0.0.6 and 2 more"; got != want {
		t.Errorf("a long list: %q, want %q", got, want)
	}
}
