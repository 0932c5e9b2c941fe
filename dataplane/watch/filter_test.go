package watch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

var names = &Names{
	Attachments: []string{"vm1-nic", "vm2-nic", "vnet1/subnet3", "internet"},
	Rules: []RuleName{
		{"NSG1", "AllowHttp"}, {"NSG1", "DenyAllInBound"}, {"NSG2", "AllowHttp"}, {"/x/one/NSG3", "securityRules/DenyAllInBound"}, {"/x/two/NSG3", "or"},
	},
}

func addr(text string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(text)) }

// request is a denied TCP packet from the internet to VM1.
func request() *Event {
	e := &Event{From: 3, To: 0, Drop: packet.DropRule}
	e.Packet.Tuple = packet.Tuple{Src: addr("203.0.113.10"), Dst: addr("10.0.1.4"), SrcPort: 50000, DstPort: 80, Proto: packet.ProtoTCP}
	e.Note(conntrack.MakeSlots(0, 3))
	return e
}

func TestFilterTakesWhatItSays(t *testing.T) {
	udp := *request()
	udp.Packet.Proto, udp.Drop, udp.Standing, udp.N = packet.ProtoUDP, packet.NotDropped, Begins, 1
	later := *request()
	later.Packet.Fragment = packet.Fragment{Start: 64}
	six := *request()
	six.Packet.Src, six.Packet.Dst, six.Packet.Proto = addr("2001:db8::10"), addr("fd00::4"), packet.ProtoICMPv6
	malformed := Event{From: 3, To: -1, Drop: packet.DropVersion}
	translated := *request()
	translated.Translated, translated.Arrives = true, packet.Tuple{Src: addr("203.0.113.10"), Dst: addr("10.0.2.4"), SrcPort: 50000, DstPort: 8080, Proto: packet.ProtoTCP}
	all := []*Event{request(), &udp, &later, &six, &malformed, &translated}
	const (
		tcp = 1 << iota
		datagram
		fragment
		ipv6
		broken
		nat
		every = 1<<iota - 1
	)
	tests := []struct {
		filter string
		takes  int
	}{
		{"", every}, {" \t", every},
		{"host 10.0.1.4", tcp | datagram | fragment | nat}, {"10.0.1.4", tcp | datagram | fragment | nat},
		{"src host 10.0.1.4", 0}, {"dst host 10.0.1.4", tcp | datagram | fragment | nat}, {"dst 10.0.2.4", nat},
		{"net 10.0.0.0/8", tcp | datagram | fragment | nat}, {"10.0.2.0/24", nat}, {"net ::/0", ipv6}, {"net 0.0.0.0/0", tcp | datagram | fragment | nat},
		{"src and dst net 203.0.113.0/24", 0}, {"src or dst net 203.0.113.0/24", tcp | datagram | fragment | nat},
		{"host fd00::4", ipv6}, {"net fd00::/8", ipv6},
		{"port 80", tcp | datagram | nat}, {"src port 80", 0}, {"dst port 80", tcp | datagram | nat}, {"port 8080", nat}, {"port 22 or 8080", nat},
		{"tcp port 80", tcp | nat}, {"udp dst port 80", datagram}, {"portrange 79-80", tcp | datagram | nat}, {"portrange 81-90", 0},
		{"tcp", tcp | fragment | nat}, {"udp", datagram}, {"icmp", ipv6}, {"icmp6", ipv6}, {"proto 58", ipv6}, {"proto 6 or 17", every &^ (ipv6 | broken)}, {"proto tcp", tcp | fragment | nat},
		{"ip", every &^ (ipv6 | broken)}, {"ip6", ipv6}, {"ip6 host fd00::4", ipv6},
		{"nic vm1-nic", every &^ broken}, {"dst nic VM1-NIC", every &^ broken}, {"src nic vm1-nic", 0}, {"attachment internet", every}, {"nic vnet1/subnet3", 0},
		{"nsg NSG1", every &^ broken}, {"nsg nsg3", every &^ (datagram | broken)}, {"nsg NSG2", 0}, {"nsg /x/two/NSG3", 0}, {`nsg "NSG1"`, every &^ broken},
		{"rule AllowHttp", every &^ broken}, {"rule denyallinbound", every &^ (datagram | broken)}, {"rule defaultSecurityRules/DenyAllInBound", every &^ (datagram | broken)}, {"rule 'or'", 0},
		{"verdict deny", every &^ datagram}, {"verdict allow", datagram}, {"reason rule_deny", every &^ (datagram | broken)}, {"reason ip_version", broken}, {"reason none", datagram},
		{"flow new", datagram}, {"flow none", every &^ datagram}, {"flow live or related", 0},
		{"not tcp", every &^ (tcp | fragment | nat)}, {"!tcp", every &^ (tcp | fragment | nat)}, {"not (tcp or udp)", ipv6 | broken}, {"! tcp && ! udp", ipv6 | broken},
		{"tcp or udp and port 81", tcp | fragment | nat}, {"(tcp or udp) and port 81", 0}, {"tcp || udp && port 81", tcp | fragment | nat}, {"NOT tcp AND ip", datagram},
		{"host 10.0.1.4 and not dst port 80", fragment}, {"tcp and port 80 or 8080", tcp | nat}, {"host 10.0.9.9 or 10.0.1.4", tcp | datagram | fragment | nat},
		{"src or dst port 80", tcp | datagram | nat}, {"not not tcp", tcp | fragment | nat}, {"((tcp))", tcp | fragment | nat},
	}
	for _, tt := range tests {
		t.Run(tt.filter, func(t *testing.T) {
			p := mustBind(t, tt.filter)
			for i, e := range all {
				if got, want := p.Match(e), tt.takes>>i&1 != 0; got != want {
					t.Errorf("event %d: %v, want %v", i, got, want)
				}
			}
		})
	}
}

func mustBind(t testing.TB, text string) *Program {
	t.Helper()
	f, err := Parse(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	p, err := f.bind(names, true)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return p
}

func TestErrorsNameTheColumnAndWhatIsAllowed(t *testing.T) {
	tests := []struct{ name, filter, want string }{
		{"an unknown word", "tcp and prot 80", `column 9: "prot": allowed here are not, (, an address, a prefix and ip, ip6, ah,`},
		{"an unknown word first", "hots 10.0.0.1", `column 1: "hots": allowed here are`},
		{"a word behind an expression", "tcp 80", `column 5: "80": allowed here are and, or and the end`},
		{"no value", "tcp port", `column 9: the end: allowed behind port is a port from 0 to 65535`},
		{"an operator in place of a value", "port and tcp", `column 6: "and": allowed behind port is a port from 0 to 65535`},
		{"no expression behind and", "tcp and", `column 8: the end: allowed here are not, (,`},
		{"a port too high", "port 65536", `column 6: "65536": allowed is a port from 0 to 65535`},
		{"a port with a sign", "port +1", `column 6: "+1": allowed is a port`},
		{"a service's name", "port http", `column 6: "http": allowed is a port from 0 to 65535`},
		{"a range backwards", "portrange 9-8", `column 11: "9-8": allowed is two ports such as 8000-8080`},
		{"a host name", "host example.com", `column 6: "example.com": allowed is an IP address`},
		{"an address with a zone", "host fe80::1%eth0", `column 6: "fe80::1%eth0": allowed is an IP address`},
		{"a network with host bits", "net 10.0.0.1/8", `column 5: "10.0.0.1/8" has bits set behind the prefix: allowed is 10.0.0.0/8`},
		{"an address as a network", "net 10.0.0.1", `column 5: "10.0.0.1": allowed is a prefix such as 10.0.0.0/24`},
		{"an unknown protocol", "proto 256", `column 7: "256": allowed is tcp, udp,`},
		{"an unknown verdict", "verdict drop", `column 9: "drop": allowed are allow, deny`},
		{"an unknown reason", "reason denied", `column 8: "denied": allowed are none, truncated,`},
		{"an unknown flow", "flow old", `column 6: "old": allowed are none, new, live, related`},
		{"a side without a meaning", "src nsg NSG1", `column 9: src and dst say nothing about "NSG1": allowed is nsg without them`},
		{"a side alone", "src and tcp", `column 5: "and": allowed behind src and dst are host, net,`},
		{"an open parenthesis", "(tcp or udp", `column 12: the end: allowed here are and, or and the ) for the ( in column 1`},
		{"a closing parenthesis", "tcp)", `column 4: ")": allowed here are and, or and the end`},
		{"nothing in parentheses", "()", `column 2: ")": allowed here are`},
		{"one ampersand", "tcp & udp", `column 5: "&": allowed are && and ||`},
		{"a quote without end", `nsg "NSG1`, `column 5: " begins a name that is empty or has no end`},
		{"an NSG that is not there", "tcp and nsg NSG9", `column 13: nsg "NSG9": there is none of that name: allowed are NSG1, NSG2, /x/one/NSG3, /x/two/NSG3`},
		{"a NIC that is not there", "nic vm9 or nsg NSG9", `column 5: nic "vm9": there is none of that name: allowed are vm1-nic, vm2-nic, vnet1/subnet3, internet`},
		{"a rule that is not there", "rule x", `column 6: rule "x": there is none of that name: allowed are AllowHttp,`},
		{"too deep", strings.Repeat("(", 65) + "tcp", `column 65: "(": not and parentheses stand 65 deep: allowed are 64`},
		{"too long", strings.Repeat(" ", MaxText+1), `column 4097: the filter has 4097 bytes: allowed are 4096`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.filter)
			if err == nil {
				_, err = f.bind(names, true)
			}
			if err == nil || !strings.HasPrefix(err.Error(), "filter: "+tt.want) {
				t.Errorf("%v\nwant %s", err, tt.want)
			}
		})
	}
}

// meaning is what an expression says of an event, in the slowest way.
type meaning func(*Event) bool

// expression is one with its meaning; level is how strongly what it is made of holds together.
type expression struct {
	text  string
	means meaning
	level int // 0 or, 1 and, 2 not and the rest
}

func (x expression) in(level int) string {
	if x.level < level {
		return "(" + x.text + ")"
	}
	return x.text
}

func randomExpression(r *rand.Rand, depth int) expression {
	if depth == 0 || r.IntN(4) == 0 {
		return randomPrimitive(r)
	}
	a := randomExpression(r, depth-1)
	if r.IntN(3) == 0 {
		return expression{pick(r, "not ", "! ") + a.in(2), func(e *Event) bool { return !a.means(e) }, 2}
	}
	b := randomExpression(r, depth-1)
	if r.IntN(2) == 0 {
		return expression{a.in(0) + pick(r, " or ", "||") + b.in(1), func(e *Event) bool { return a.means(e) || b.means(e) }, 0}
	}
	return expression{a.in(1) + pick(r, " and ", "&&") + b.in(2), func(e *Event) bool { return a.means(e) && b.means(e) }, 1}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

var (
	somewhere = []string{"10.0.1.4", "10.0.1.5", "10.0.2.4", "203.0.113.10", "fd00::4", "fd00::5", "2001:db8::10"}
	networks  = []string{"10.0.1.0/24", "10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "2001:db8::/32", "10.0.1.4/31", "fd00::4/127", "203.0.113.10/32", "::/1"}
)

func randomPrimitive(r *rand.Rand) expression {
	side, sided := "", func(src, dst bool) bool { return src || dst }
	switch r.IntN(5) {
	case 0:
		side, sided = "src ", func(src, _ bool) bool { return src }
	case 1:
		side, sided = "dst ", func(_, dst bool) bool { return dst }
	case 2:
		side, sided = "src and dst ", func(src, dst bool) bool { return src && dst }
	}
	tuples := func(f func(packet.Tuple) bool) meaning {
		return func(e *Event) bool {
			return e.Packet.Dst != packet.Addr{} && f(e.Packet.Tuple) || e.Translated && f(e.Arrives)
		}
	}
	ports := func(text string, in func(int) bool) expression {
		return expression{text, func(e *Event) bool {
			return !e.Packet.Fragment.IsLater() && tuples(func(t packet.Tuple) bool {
				return (t.Proto == 6 || t.Proto == 17) && sided(in(int(t.SrcPort)), in(int(t.DstPort)))
			})(e)
		}, 2}
	}
	ruled := func(text string, is func(RuleName) bool) expression {
		return expression{text, func(e *Event) bool {
			return slices.ContainsFunc(e.Rules[:e.N], func(slot uint32) bool { return int(slot) < len(names.Rules) && is(names.Rules[slot]) })
		}, 2}
	}
	switch r.IntN(11) {
	case 0:
		a := pick(r, somewhere...)
		return expression{side + pick(r, "host ", "") + a, tuples(func(t packet.Tuple) bool { return sided(t.Src.String() == a, t.Dst.String() == a) }), 2}
	case 1:
		text := pick(r, networks...)
		n := netip.MustParsePrefix(text)
		return expression{side + "net " + text, tuples(func(t packet.Tuple) bool {
			return sided(n.Contains(t.Src.Netip()), n.Contains(t.Dst.Netip()))
		}), 2}
	case 2:
		port := r.IntN(4)
		return ports(fmt.Sprint(side, "port ", port), func(p int) bool { return p == port })
	case 3:
		first := r.IntN(4)
		last := first + r.IntN(3)
		return ports(fmt.Sprintf("%sportrange %d-%d", side, first, last), func(p int) bool { return first <= p && p <= last })
	case 4:
		word := pick(r, "tcp", "udp", "icmp", "icmp6", "ip", "ip6", "proto 6", "proto 17", "proto icmp6")
		return expression{word, tuples(func(t packet.Tuple) bool {
			switch word {
			case "ip":
				return t.Dst.Netip().Is4()
			case "ip6":
				return t.Dst.Netip().Is6()
			case "icmp":
				return t.Proto == 1 || t.Proto == 58
			}
			return int(t.Proto) == map[string]int{"tcp": 6, "proto 6": 6, "udp": 17, "proto 17": 17, "icmp6": 58, "proto icmp6": 58}[word]
		}), 2}
	case 5:
		i := r.IntN(len(names.Attachments))
		return expression{side + pick(r, "nic ", "attachment ") + names.Attachments[i], func(e *Event) bool { return sided(int(e.From) == i, int(e.To) == i) }, 2}
	case 6:
		name := pick(r, "NSG1", "nsg2", "NSG3")
		return ruled("nsg "+name, func(n RuleName) bool { return strings.HasSuffix(n.NetworkSecurityGroup, strings.ToUpper(name)) })
	case 7:
		name := pick(r, "AllowHttp", "DenyAllInBound", `"or"`)
		return ruled("rule "+name, func(n RuleName) bool { return strings.HasSuffix(n.Rule, strings.Trim(name, `"`)) })
	case 8:
		deny := r.IntN(2) == 1
		return expression{"verdict " + map[bool]string{true: "deny", false: "allow"}[deny], func(e *Event) bool { return (e.Drop != 0) == deny }, 2}
	case 9:
		d := packet.Drop(r.IntN(int(packet.NumDrops)))
		if r.IntN(2) == 0 {
			d = packet.DropRule
		}
		return expression{"reason " + d.String(), func(e *Event) bool { return e.Drop.String() == d.String() }, 2}
	}
	word := pick(r, "none", "new", "live", "related")
	return expression{"flow " + word, func(e *Event) bool { return e.Standing.String() == word }, 2}
}

func randomTuple(r *rand.Rand) packet.Tuple {
	list := somewhere[:4]
	if r.IntN(2) == 0 {
		list = somewhere[4:]
	}
	return packet.Tuple{Src: addr(pick(r, list...)), Dst: addr(pick(r, list...)), SrcPort: uint16(r.IntN(6)), DstPort: uint16(r.IntN(6)),
		Proto: pick[uint8](r, 1, 6, 6, 17, 17, 50, 58)}
}

func randomEvent(r *rand.Rand) *Event {
	e := &Event{From: int32(r.IntN(4)), To: int32(r.IntN(5) - 1), Standing: Standing(r.IntN(4))}
	if r.IntN(10) > 0 {
		e.Packet.Tuple = randomTuple(r)
	}
	if r.IntN(5) == 0 {
		e.Packet.Fragment = packet.Fragment{Start: uint16(r.IntN(2) * 8), More: true}
	}
	if r.IntN(2) == 0 {
		e.Drop = pick(r, packet.DropRule, packet.DropRule, packet.Drop(r.IntN(int(packet.NumDrops))))
	}
	if e.Translated = r.IntN(4) == 0; e.Translated {
		e.Arrives = randomTuple(r)
	}
	for range r.IntN(4) {
		e.Rules[e.N] = pick[uint32](r, 0, 1, 2, 3, 4, 1<<20)
		e.N++
	}
	return e
}

// TestFiltersMeanWhatTheyAreMadeOf puts random expressions to random events, and compares with what
// the parts say, joined by Go itself.
func TestFiltersMeanWhatTheyAreMadeOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	taken, all := 0, 0
	for range 4_000 {
		x := randomExpression(r, r.IntN(5))
		p := mustBind(t, x.text)
		for range 8 {
			e := randomEvent(r)
			got := p.Match(e)
			if got != x.means(e) {
				t.Fatalf("%q takes %+v: %v", x.text, e, got)
			}
			all++
			if got {
				taken++
			}
		}
	}
	if taken < all/4 || taken > all*3/4 {
		t.Errorf("%d of %d taken: the events are none that tell", taken, all)
	}
}

// FuzzParse: whatever the text, there is a filter or an error whose column is in it, and a filter in
// parentheses and twice negated is the same one.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"tcp port 80 or 443", "not (src nic vm1-nic and rule 'or')", "src or dst net 10.0.0.0/8 && !udp", "nsg \"NSG1\" or NSG2", "(((", "host fd00::4 and verdict deny"} {
		f.Add(text, uint64(1))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		filter, err := Parse(text)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Column < 1 || e.Column > len(text)+1 || e.Message == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		p, _ := filter.bind(names, false)
		if filter.root == nil || len(text) > MaxText/2 {
			return
		}
		twice, err := Parse("not (not (" + text + "\n))")
		if err != nil {
			if strings.Contains(err.Error(), "deep") {
				return
			}
			t.Fatalf("%q negated twice: %v", text, err)
		}
		q, _ := twice.bind(names, false)
		r := rand.New(rand.NewPCG(seed, 3))
		for range 20 {
			if e := randomEvent(r); p.Match(e) != q.Match(e) {
				t.Fatalf("%q is not what it is negated twice, for %+v", text, e)
			}
		}
	})
}
