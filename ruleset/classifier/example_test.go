package classifier_test

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// A group lets in web traffic from one subnet and nothing else.
func Example() {
	anywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	all := []ruleset.PortRange{ruleset.AllPorts}
	names := []string{"AllowWeb", "DenyAll"}
	table := classifier.Compile([]classifier.Rule{
		{
			Protocol:         ruleset.TCP,
			Sources:          []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")},
			Destinations:     anywhere,
			SourcePorts:      all,
			DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}, {First: 443, Last: 443}},
		},
		{Sources: anywhere, Destinations: anywhere, SourcePorts: all, DestinationPorts: all},
	})
	for _, source := range []string{"10.0.1.4", "10.0.2.4"} {
		k := packet.Tuple{
			Src: packet.AddrFrom(netip.MustParseAddr(source)), SrcPort: 49152,
			Dst: packet.AddrFrom(netip.MustParseAddr("10.0.3.4")), DstPort: 443,
			Proto: packet.ProtoTCP,
		}
		fmt.Println(k, names[table.FirstMatch(&k)])
	}
	// Output:
	// TCP 10.0.1.4:49152 -> 10.0.3.4:443 AllowWeb
	// TCP 10.0.2.4:49152 -> 10.0.3.4:443 DenyAll
}
