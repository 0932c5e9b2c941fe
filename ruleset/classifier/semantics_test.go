package classifier_test

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// prefixes parses a list without masking host bits.
func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func ports(firstLast ...uint16) []ruleset.PortRange {
	var out []ruleset.PortRange
	for i := 0; i < len(firstLast); i += 2 {
		out = append(out, ruleset.PortRange{First: firstLast[i], Last: firstLast[i+1]})
	}
	return out
}

func tuple(proto uint8, src string, srcPort uint16, dst string, dstPort uint16) packet.Tuple {
	return packet.Tuple{
		Proto: proto, Src: packet.AddrFrom(netip.MustParseAddr(src)), SrcPort: srcPort,
		Dst: packet.AddrFrom(netip.MustParseAddr(dst)), DstPort: dstPort,
	}
}

// TestWhatOneRuleMatches checks Table and Linear against the package comment.
func TestWhatOneRuleMatches(t *testing.T) {
	tcp := tuple(packet.ProtoTCP, "10.0.0.4", 49152, "10.0.1.4", 80)
	tcp6 := tuple(packet.ProtoTCP, "fd00::4", 49152, "fd00:1::4", 80)
	echo := tuple(packet.ProtoICMP, "10.0.0.4", 0, "10.0.1.4", 8)
	echo6 := tuple(packet.ProtoICMPv6, "fd00::4", 0, "fd00:1::4", 128)
	esp := tuple(packet.ProtoESP, "10.0.0.4", 0, "10.0.1.4", 0)
	tests := []struct {
		name string
		rule func(*classifier.Rule) // changes a rule that matches every packet
		k    packet.Tuple
		want bool
	}{
		{"a rule of wildcards matches IPv4", nil, tcp, true},
		{"a rule of wildcards matches IPv6", nil, tcp6, true},
		{"a rule of wildcards matches a protocol that no rule can name", nil, tuple(packet.ProtoGRE, "10.0.0.4", 0, "10.0.1.4", 0), true},
		{"a rule of wildcards matches ICMPv6 over IPv4", nil, tuple(packet.ProtoICMPv6, "10.0.0.4", 0, "10.0.1.4", 8), true},

		{"no source matches nothing", func(r *classifier.Rule) { r.Sources = nil }, tcp, false},
		{"no destination matches nothing", func(r *classifier.Rule) { r.Destinations = nil }, tcp, false},
		{"no source port matches nothing", func(r *classifier.Rule) { r.SourcePorts = nil }, tcp, false},
		{"no destination port matches nothing", func(r *classifier.Rule) { r.DestinationPorts = nil }, tcp, false},
		{"no destination port matches no packet without ports", func(r *classifier.Rule) { r.DestinationPorts = nil }, esp, false},
		{"a prefix that is not valid matches nothing", func(r *classifier.Rule) { r.Sources = []netip.Prefix{{}} }, tcp6, false},
		{"a protocol out of range matches nothing", func(r *classifier.Rule) { r.Protocol = ruleset.AH + 1 }, tcp, false},

		{"a host route matches its host", func(r *classifier.Rule) { r.Sources = prefixes("10.0.0.4/32") }, tcp, true},
		{"a host route matches no neighbour", func(r *classifier.Rule) { r.Sources = prefixes("10.0.0.5/32", "10.0.0.3/32") }, tcp, false},
		{"an IPv6 host route matches its host", func(r *classifier.Rule) { r.Destinations = prefixes("fd00:1::4/128") }, tcp6, true},
		{"an IPv6 host route matches no neighbour", func(r *classifier.Rule) { r.Destinations = prefixes("fd00:1::5/128", "fd00:1::3/128") }, tcp6, false},
		{"host bits of a prefix are ignored", func(r *classifier.Rule) { r.Sources = prefixes("10.0.0.77/24") }, tcp, true},
		{"a list may overlap itself", func(r *classifier.Rule) {
			r.Sources = prefixes("10.0.0.0/24", "10.0.0.4/32", "10.0.0.0/8", "10.0.0.0/24")
		}, tcp, true},
		{"the last IPv4 address is inside its prefix", func(r *classifier.Rule) { r.Sources = prefixes("255.255.255.254/31") }, tuple(packet.ProtoUDP, "255.255.255.255", 1, "10.0.1.4", 1), true},
		{"the last IPv6 address is inside its prefix", func(r *classifier.Rule) { r.Sources = prefixes("ff00::/8") }, tuple(packet.ProtoUDP, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1, "fd00::1", 1), true},
		{"an IPv6 prefix that ends inside the upper half", func(r *classifier.Rule) { r.Sources = prefixes("fd00::/40") }, tcp6, true},
		{"a prefix of length 64 ends with its subnet", func(r *classifier.Rule) { r.Sources = prefixes("fd00:0:0:1::/64") }, tcp6, false},

		{"0.0.0.0/0 doesn't match IPv6", func(r *classifier.Rule) { r.Sources = prefixes("0.0.0.0/0") }, tcp6, false},
		{"::/0 doesn't match IPv4", func(r *classifier.Rule) { r.Sources = prefixes("::/0") }, tcp, false},
		{"an IPv4-mapped prefix is the IPv4 prefix", func(r *classifier.Rule) { r.Sources = prefixes("::ffff:10.0.0.0/104") }, tcp, true},
		{"the whole mapped range is every IPv4 address", func(r *classifier.Rule) { r.Sources = prefixes("::ffff:0:0/96") }, tcp, true},
		{"an IPv6 prefix around the mapped range doesn't match IPv4", func(r *classifier.Rule) { r.Sources = prefixes("::/64") }, tcp, false},

		{"a port range holds its first port", func(r *classifier.Rule) { r.DestinationPorts = ports(80, 90) }, tcp, true},
		{"a port range holds its last port", func(r *classifier.Rule) { r.DestinationPorts = ports(70, 80) }, tcp, true},
		{"a port range ends", func(r *classifier.Rule) { r.DestinationPorts = ports(70, 79, 81, 90) }, tcp, false},
		{"a port range the wrong way round is empty", func(r *classifier.Rule) { r.DestinationPorts = ports(90, 70) }, tcp, false},
		{"ranges may overlap", func(r *classifier.Rule) { r.SourcePorts = ports(1, 50000, 49152, 49152) }, tcp, true},
		{"the source port is not the destination port", func(r *classifier.Rule) { r.SourcePorts = ports(80, 80) }, tcp, false},

		{"ICMP's type is matched as the destination port", func(r *classifier.Rule) { r.DestinationPorts = ports(8, 8) }, echo, true},
		{"another ICMP type than the range's", func(r *classifier.Rule) { r.DestinationPorts = ports(0, 0) }, echo, false},
		{"ICMPv6's type is matched as the destination port", func(r *classifier.Rule) { r.DestinationPorts = ports(128, 129) }, echo6, true},
		{"ICMP has no source port", func(r *classifier.Rule) { r.SourcePorts = ports(0, 1023) }, echo, false},
		{"all source ports in pieces are all", func(r *classifier.Rule) { r.SourcePorts = ports(1024, 65535, 0, 1023) }, echo, true},
		{"all source ports but one are not all", func(r *classifier.Rule) { r.SourcePorts = ports(1024, 65535, 0, 1022) }, echo, false},
		{"ESP has no destination port", func(r *classifier.Rule) { r.DestinationPorts = ports(0, 65534) }, esp, false},
		{"a port field of a packet without ports is not looked at", func(r *classifier.Rule) { r.DestinationPorts = ports(80, 80) }, tuple(packet.ProtoGRE, "10.0.0.4", 80, "10.0.1.4", 80), false},

		{"TCP is TCP", func(r *classifier.Rule) { r.Protocol = ruleset.TCP }, tcp, true},
		{"TCP is not UDP", func(r *classifier.Rule) { r.Protocol = ruleset.UDP }, tcp, false},
		{"ESP is ESP", func(r *classifier.Rule) { r.Protocol = ruleset.ESP }, esp, true},
		{"ESP is not AH", func(r *classifier.Rule) { r.Protocol = ruleset.AH }, esp, false},
		{"ICMP is protocol 1 over IPv4", func(r *classifier.Rule) { r.Protocol = ruleset.ICMP }, echo, true},
		{"ICMP is protocol 58 over IPv6", func(r *classifier.Rule) { r.Protocol = ruleset.ICMP }, echo6, true},
		{"ICMPv6 is protocol 58 over IPv6", func(r *classifier.Rule) { r.Protocol = ruleset.ICMPv6 }, echo6, true},
		{"ICMPv6 is not protocol 1 over IPv4", func(r *classifier.Rule) { r.Protocol = ruleset.ICMPv6 }, echo, false},
		{"ICMPv6 is not protocol 58 over IPv4", func(r *classifier.Rule) { r.Protocol = ruleset.ICMPv6 }, tuple(packet.ProtoICMPv6, "10.0.0.4", 0, "10.0.1.4", 128), false},
		{"ICMP is not protocol 58 over IPv4", func(r *classifier.Rule) { r.Protocol = ruleset.ICMP }, tuple(packet.ProtoICMPv6, "10.0.0.4", 0, "10.0.1.4", 128), false},
		{"ICMP is not protocol 1 over IPv6", func(r *classifier.Rule) { r.Protocol = ruleset.ICMP }, tuple(packet.ProtoICMP, "fd00::4", 0, "fd00:1::4", 8), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rule := classifier.Rule{Sources: anywhere, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts}
			if tt.rule != nil {
				tt.rule(&rule)
			}
			rules := []classifier.Rule{rule}
			if got := classifier.Compile(rules).FirstMatch(&tt.k) == 0; got != tt.want {
				t.Errorf("table matches: %v, want %v", got, tt.want)
			}
			if got := classifier.Linear(rules).FirstMatch(&tt.k) == 0; got != tt.want {
				t.Errorf("linear matches: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTheFirstOfSeveralMatchingRulesWins(t *testing.T) {
	wildcard := classifier.Rule{Sources: anywhere, Destinations: anywhere, SourcePorts: allPorts, DestinationPorts: allPorts}
	web := wildcard
	web.DestinationPorts = ports(80, 80)
	k := tuple(packet.ProtoTCP, "10.0.0.4", 49152, "10.0.1.4", 80)
	for _, tt := range []struct {
		name  string
		rules []classifier.Rule
		want  int
	}{
		{"the narrow rule stands first", []classifier.Rule{web, wildcard}, 0},
		{"the wide rule stands first", []classifier.Rule{wildcard, web}, 0},
		{"no rule", nil, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := classifier.Compile(tt.rules).FirstMatch(&k); got != tt.want {
				t.Errorf("rule %d, want %d", got, tt.want)
			}
		})
	}
}

// TestATableOfTenRulesIsSmall checks that a host can afford thousands of network security
// groups.
func TestATableOfTenRulesIsSmall(t *testing.T) {
	rules := make([]classifier.Rule, 10)
	for i := range rules {
		rules[i] = classifier.Rule{
			Sources: prefixes("10.0.0.0/16", "192.0.2.0/24", "fd00::/48"), Destinations: prefixes("10.0.1.4/32", "10.0.1.5/32"),
			SourcePorts: allPorts, DestinationPorts: ports(uint16(80+i), uint16(80+i)),
		}
	}
	if got := classifier.Compile(rules).Bytes(); got > 4096 {
		t.Errorf("%d bytes, want at most 4096", got)
	}
}

// Rules that differ in any field are not equal. A field that Equal did not compare would
// leave the old compiled table in use after a reload.
func TestEqualComparesEveryField(t *testing.T) {
	rule := func() classifier.Rule {
		return classifier.Rule{
			Protocol: ruleset.TCP, Sources: prefixes("10.0.0.0/8"), Destinations: prefixes("10.1.0.0/16"),
			SourcePorts: ports(0, 65535), DestinationPorts: ports(80, 80),
		}
	}
	a, b := rule(), rule()
	if !a.Equal(&b) {
		t.Error("equal contents in different memory are not equal")
	}
	for i := range reflect.TypeFor[classifier.Rule]().NumField() {
		for name, change := range map[string]func(reflect.Value){
			"zero": reflect.Value.SetZero,
			"other": func(f reflect.Value) {
				if f.Kind() == reflect.Slice { // another element, in other memory
					f.Set(reflect.Append(reflect.MakeSlice(f.Type(), 0, 1), reflect.Zero(f.Type().Elem())))
				} else {
					f.SetUint(f.Uint() + 1)
				}
			},
		} {
			b = rule()
			change(reflect.ValueOf(&b).Elem().Field(i))
			if a.Equal(&b) {
				t.Errorf("field %s, %s value: equal", reflect.TypeFor[classifier.Rule]().Field(i).Name, name)
			}
		}
	}
}

// A field that both kinds of rules have must arrive: one that is forgotten would match everything.
func TestResolvedRuleHasEveryFieldOfTheRule(t *testing.T) {
	rule := ruleset.Rule{
		Protocol:         ruleset.TCP,
		SourcePorts:      []ruleset.PortRange{{First: 1, Last: 2}},
		DestinationPorts: []ruleset.PortRange{{First: 3, Last: 4}},
	}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	got := reflect.ValueOf(classifier.Resolved(&rule, prefixes, prefixes))
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		if got.Field(i).IsZero() {
			t.Errorf("%s is empty: the rule's value is lost, or this test sets none", name)
		}
		if of := reflect.ValueOf(rule).FieldByName(name); of.IsValid() && !reflect.DeepEqual(of.Interface(), got.Field(i).Interface()) {
			t.Errorf("%s = %v, want that of the rule: %v", name, got.Field(i), of)
		}
	}
}
