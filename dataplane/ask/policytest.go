package ask

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/azure"
	"go4.org/netipx"
)

// PolicyTest is what a policy must do with every packet of a set.
type PolicyTest struct {
	TestPackets
	// Except are packets of the set that the test says nothing about.
	Except []TestPackets
	Expect ruleset.Access // Allow or Deny
	// Rule and NetworkSecurityGroup must be among what decides, at either end; empty: whichever does. Of the
	// rules that allow at an end, only the last one counts, as in verify.
	Rule, NetworkSecurityGroup string
	// Via are the ends that send allowed packets on, in this order; nil: whichever do.
	Via []string
}

// TestPackets are packets from any of some ends to any of others. See EndForms.
type TestPackets struct {
	From, To []string
	// Services have the ports at which packets arrive at To: behind a NAT rule where To names who receives, as sent
	// where it is an address, a prefix or a public IP address. nil: every packet.
	Services []analysis.Service
}

// The results of a test.
const (
	TestPass  = "pass"
	TestFail  = "fail"  // a packet breaks it
	TestError = "error" // nothing is known: an end is unknown, there is no packet, or it is not decided
)

// TestResult is what became of a test.
type TestResult struct {
	Result string `json:"result"`
	// Message says why it failed; empty when it passed.
	Message string `json:"message"`
	// Witness is a packet that breaks the test; nil unless it failed.
	Witness *DiffWitness `json:"witness,omitempty"`
	// Access and Reason are verify's answer about the witness and its path, and Stages and Legs how it
	// comes about.
	Access string      `json:"access,omitempty"`
	Reason string      `json:"reason,omitempty"`
	Stages []TestStage `json:"stages,omitempty"`
	Legs   []TestLeg   `json:"legs,omitempty"`
	// Others is how many more sets of packets, by deciding rules and ways, break the test.
	Others int `json:"others,omitempty"`
}

// TestStage is the decision of the rules at one end of a leg.
type TestStage struct {
	Of        string `json:"of"` // a network interface, or a subnet as vnet/subnet
	Direction string `json:"direction"`
	DiffDecision
	Priority int `json:"priority,omitempty"`
}

// TestLeg is a part of the witness's way.
type TestLeg struct {
	NextHop      string              `json:"nextHop,omitempty"`
	RouteTable   string              `json:"routeTable,omitempty"`
	Via          string              `json:"via,omitempty"` // the appliance that sends on; empty at the end
	Translations []azure.Translation `json:"translations,omitempty"`
}

// inNoTest are the reasons of packets that no test is about: ICMP that is no request begins no flow, and what is
// sent to the sender's own address leaves no host.
var inNoTest = []string{ReasonOf(packet.DropICMPNoFlow), ReasonOf(packet.DropLand)}

// maxTestPairs bounds the pairs of ends of one test.
const maxTestPairs = 10_000

// policyTest is a test whose ends are known.
type policyTest struct {
	*PolicyTest
	from, to []*End
	except   map[bool]exceptions // by whether an end's addresses were written, see Between.exceptions
	via      [][]string          // the names of each hop
}

// Test proves a test for all its packets, or finds one that breaks it.
func (b *Between) Test(t *PolicyTest) *TestResult {
	test, err := b.policyTest(t)
	if err != nil {
		return &TestResult{Result: TestError, Message: err.Error()}
	}
	var broken brokenBy
	var undecided []UndecidedPath
	packets := 0
	for _, from := range test.from {
		for _, to := range test.to {
			q, err := b.query(from, to)
			if err != nil {
				return &TestResult{Result: TestError, Message: err.Error()}
			}
			q.arriving, q.except = to.means != nil, test.except[to.means == nil]
			sets := q.ask(t.Services)
			undecided = append(undecided, sets.Undecided...)
			for _, u := range q.unassigned(t.Services) {
				undecided = append(undecided, UndecidedPath{From: u.From, To: u.To, Why: u.Why})
			}
			for i := range sets.Sets {
				if slices.Contains(inNoTest, sets.Sets[i].Reason) {
					continue
				}
				packets++
				if test.broken(&sets.Sets[i]) != "" {
					broken.add(b, &sets.Sets[i])
				}
			}
		}
	}
	switch {
	case broken.sets > 0:
		return broken.result(b, test)
	case len(undecided) > 0:
		u := &undecided[0]
		message := "not decided: " + u.Why
		if len(u.Boxes) > 0 {
			message += fmt.Sprintf("; such as %s", u.Boxes[0])
		}
		return &TestResult{Result: TestError, Message: message}
	case packets == 0:
		return &TestResult{Result: TestError, Message: "the test is about no packet: its ends have no addresses of one family, or except leaves nothing"}
	}
	return &TestResult{Result: TestPass}
}

// brokenBy is the set of packets that is shown of those that break a test: one of network interfaces, if there is.
type brokenBy struct {
	sets    int
	set     *PathSet
	witness packet.Tuple
	nobody  int // how many of the witness's ends are addresses of a subnet that nobody has
}

func (f *brokenBy) add(b *Between, set *PathSet) {
	f.sets++
	if f.set != nil && f.nobody == 0 {
		return
	}
	witness, nobody := set.example(b)
	if f.set == nil || nobody < f.nobody {
		f.set, f.witness, f.nobody = set, witness, nobody
	}
}

// mostExamples bounds the places of a set that are tried as examples.
const mostExamples = 50

// example is a packet of the set, of network interfaces where there is one, and how many of its ends are
// addresses of a subnet that nobody has. Deciders name its ends.
func (p *PathSet) example(b *Between) (k packet.Tuple, nobody int) {
	k = p.Witnesses[0]
	for side, places := range [][]place{p.from, p.to} {
		for i := range places[:min(len(places), mostExamples)] {
			try, a := k, places[i].address()
			*[]*packet.Addr{&try.Src, &try.Dst}[side] = packet.AddrFrom(a)
			owner := b.snapshot.Owner(a)
			if owner == nil || owner.NetworkInterface == nil || try.Src == try.Dst || !slices.ContainsFunc(p.Boxes, func(box analysis.Box) bool { return box.Has(&try) }) {
				continue
			}
			k = try
			if n := len(p.Deciders); n > 0 && !p.course.redirects() {
				if d := &p.Deciders[[]int{0, n - 1}[side]]; d.Direction == []string{ruleset.Outbound.String(), ruleset.Inbound.String()}[side] {
					d.Of = owner.NetworkInterface.Name
				}
			}
			break
		}
	}
	for _, a := range []packet.Addr{k.Src, k.Dst} {
		if owner := b.snapshot.Owner(a.Netip()); owner != nil && owner.Subnet != nil && owner.NetworkInterface == nil {
			nobody++
		}
	}
	return k, nobody
}

// legsOf are the legs of one packet of the set: Legs are those of an example, with its ports.
func (p *PathSet) legsOf(b *Between, k packet.Tuple) []Leg {
	first := packet.Packet{Tuple: k, Segments: 1}
	switch k.Proto {
	case packet.ProtoTCP:
		first.TCPFlags = packet.SYN
	case packet.ProtoICMP, packet.ProtoICMPv6:
		first.ICMPType, first.DstPort = uint8(k.DstPort), 0
	}
	for i := range p.from {
		if e := p.from[i].endpoint; slices.ContainsFunc(p.from[i].ranges, func(r netipx.IPRange) bool { return r.Contains(k.Src.Netip()) }) {
			courses, _ := b.courses(e, first)
			for j := range courses {
				if c := &courses[j]; b.key(c) == b.key(p.course) {
					return b.legsOf(c, len(p.Legs))
				}
			}
		}
	}
	return p.Legs
}

// result shows the set. The message names it as Deciders do.
func (f *brokenBy) result(b *Between, t *policyTest) *TestResult {
	w := witnessOf(&f.witness)
	r := &TestResult{Result: TestFail, Message: t.broken(f.set), Witness: &w, Access: f.set.Access, Reason: f.set.Reason, Others: f.sets - 1}
	for i := range f.set.Deciders {
		d := &f.set.Deciders[i]
		r.Stages = append(r.Stages, TestStage{Of: d.Of, Direction: d.Direction, DiffDecision: d.DiffDecision, Priority: d.Priority})
	}
	legs := f.set.legsOf(b, f.witness)
	for i := range legs {
		l := &legs[i]
		if leg := (TestLeg{NextHop: l.NextHop, RouteTable: l.RouteTable, Via: l.Via, Translations: l.Translations}); leg.NextHop != "" || leg.Translations != nil {
			r.Legs = append(r.Legs, leg)
		}
	}
	return r
}

func (b *Between) policyTest(t *PolicyTest) (*policyTest, error) {
	test := &policyTest{PolicyTest: t}
	var err error
	if test.from, err = b.endsOf(t.From); err != nil {
		return nil, err
	}
	if t.Expect == ruleset.Allow {
		for i, end := range test.from {
			test.from[i] = hostsOf(end)
		}
	}
	if test.to, err = b.endsOf(t.To); err != nil {
		return nil, err
	}
	if pairs := len(test.from) * len(test.to); pairs > maxTestPairs {
		return nil, fmt.Errorf("%d pairs of ends: allowed are %d in a test", pairs, maxTestPairs)
	}
	hops, err := b.endsOf(t.Via)
	if err != nil {
		return nil, err
	}
	for _, hop := range hops {
		test.via = append(test.via, b.namesOf(hop))
	}
	test.except = map[bool]exceptions{}
	for _, written := range []bool{false, true} {
		if test.except[written], err = b.exceptions(t.Except, written); err != nil {
			return nil, err
		}
	}
	return test, nil
}

func (b *Between) endsOf(texts []string) (list []*End, err error) {
	for _, text := range texts {
		end, err := b.End(text)
		if err != nil {
			return nil, err
		}
		list = append(list, end)
	}
	return list, nil
}

// hostsOf is the internet as Azure's tag Internet has it, for who says that it is allowed. The internet may also
// send from addresses without hosts, for which rules with the tag do nothing: 192.0.2.0/24, and IPv6 that
// embeds IPv4. Other ends stay.
func hostsOf(end *End) *End {
	if !strings.EqualFold(end.Text, internetEnd) {
		return end
	}
	var b netipx.IPSetBuilder
	b.AddSet(end.addresses)
	b.Intersect(setOfPrefixes(ruleset.InternetPrefixes(nil)))
	hosts := *end
	hosts.addresses = setOf(&b)
	return &hosts
}

const internetEnd = "internet"

// namesOf are the names of the endpoints of an end, as Leg.Via has them.
func (b *Between) namesOf(end *End) (names []string) {
	for _, e := range b.snapshot.Endpoints() {
		if end.means == nil && end.addresses.Contains(e.Address()) || end.means != nil && end.means(e) {
			names = append(names, b.name(e))
		}
	}
	return names
}

// broken says why a set of packets breaks the test; empty: it does not.
func (t *policyTest) broken(set *PathSet) string {
	by := set.by()
	if set.Access != t.Expect.String() {
		return by
	}
	if (t.Rule != "" || t.NetworkSecurityGroup != "") && !slices.ContainsFunc(set.Deciders, t.expects) {
		return fmt.Sprintf("%s, not by %s", by, t.expected())
	}
	if t.via == nil {
		return ""
	}
	var hops []string
	for i := range set.Legs {
		if via := set.Legs[i].Via; via != "" {
			hops = append(hops, via)
		}
	}
	if !slices.EqualFunc(hops, t.via, func(hop string, names []string) bool { return slices.Contains(names, hop) }) {
		way := "directly"
		if len(hops) > 0 {
			way = "via " + strings.Join(hops, ", ")
		}
		return fmt.Sprintf("it goes %s, not via %s", way, strings.Join(t.Via, ", "))
	}
	return ""
}

func (t *policyTest) expected() string {
	switch {
	case t.Rule == "":
		return "a rule of " + t.NetworkSecurityGroup
	case t.NetworkSecurityGroup == "":
		return t.Rule
	}
	return t.Rule + " of " + t.NetworkSecurityGroup
}

// expects reports that a decision is by the rule and the group that the test names.
func (t *policyTest) expects(d Decider) bool {
	_, short, _ := strings.Cut(d.RuleName, "/")
	rule := t.Rule == "" || strings.EqualFold(t.Rule, d.RuleName) || strings.EqualFold(t.Rule, short)
	return rule && (t.NetworkSecurityGroup == "" || strings.EqualFold(t.NetworkSecurityGroup, d.NetworkSecurityGroup))
}

// by is such as "denied by securityRules/DenyAll of web-nsg, inbound of web-nic".
func (p *PathSet) by() string {
	word := map[string]string{ruleset.Allow.String(): "allowed", ruleset.Deny.String(): "denied"}[p.Access]
	if p.Reason != ReasonRule || len(p.Deciders) == 0 {
		return word + ": " + p.Reason
	}
	for i := len(p.Deciders) - 1; i >= 0; i-- {
		if d := &p.Deciders[i]; d.RuleName != "" {
			return fmt.Sprintf("%s by %s of %s, %s of %s", word, d.RuleName, d.NetworkSecurityGroup, strings.ToLower(d.Direction), d.Of)
		}
	}
	return word
}

// MaxTestPorts bounds the ranges of ports of a test: what they are asked about grows with them.
const MaxTestPorts = 1000

// ServicesOf are protocols and ports as a test file lists them; nil: every packet. Ports without a protocol
// are those of TCP and UDP, or a service's own. Equal and neighbouring ports become one range.
func ServicesOf(protocolNames, ports []string) (list []analysis.Service, err error) {
	var ranges []ruleset.PortRange
	var numbers []uint8
	for _, port := range ports {
		r, usual, err := parsePorts(port)
		if err != nil {
			return nil, err
		}
		ranges, numbers = append(ranges, r...), append(numbers, usual...)
	}
	if ranges = mergedPorts(ranges); len(ranges) > MaxTestPorts {
		return nil, fmt.Errorf("%d ranges of ports: allowed are %d", len(ranges), MaxTestPorts)
	}
	if len(protocolNames) > 0 {
		numbers = nil
	}
	for _, name := range protocolNames {
		if name == "*" {
			if ports != nil {
				return nil, fmt.Errorf("protocol \"*\" has no ports: allowed with ports are TCP and UDP, which ports without a protocol mean")
			}
			return nil, nil
		}
		of, err := numbersOf(name)
		if err != nil {
			return nil, err
		}
		if hasPorts := of[0] == packet.ProtoTCP || of[0] == packet.ProtoUDP; ports != nil && !hasPorts {
			return nil, fmt.Errorf("protocol %s has no ports: allowed with ports are TCP and UDP", name)
		}
		numbers = append(numbers, of...)
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		list = append(list, analysis.Service{Protocol: n, Ports: ranges})
	}
	return list, nil
}

// numbersOf are IANA's numbers of a protocol. What rules cannot name is alike.
func numbersOf(name string) ([]uint8, error) {
	if numbers := protocols[strings.ToLower(name)]; numbers != nil {
		return numbers, nil
	}
	n, err := strconv.ParseUint(name, 10, 8)
	if err != nil {
		return nil, fmt.Errorf("protocol %q: allowed are *, TCP, UDP, ICMP, ESP, AH and 0 to 255", ruleset.Clip(name))
	}
	for _, numbers := range protocols {
		if slices.Contains(numbers, uint8(n)) {
			return numbers, nil
		}
	}
	return []uint8{analysis.OtherProtocols}, nil
}
