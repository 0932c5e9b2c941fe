package ask

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// NamedTest is a test with a sentence for its name.
type NamedTest struct {
	Name string
	PolicyTest
}

// The bounds of TestsOf: maxTestsOf of the pairs of ends that it asks about, those that are alike counted once, maxTestsHeld of
// all pairs, for which it holds the tests that it writes, and mostEnds of the ends of a test, which has maxTestPairs.
const (
	maxTestsOf   = 2500
	maxTestsHeld = 25_000
	mostEnds     = 100
)

// TestsOf are tests that hold what a policy does now: from the internet to each subnet and application security
// group with network interfaces, and between such subnets. Ends that are alike share a test, and all tests
// pass. leftOut names the pairs for which there is none, and why. Subnets of a kind are asked about once. It fails when there
// are too many pairs.
func (b *Between) TestsOf() (tests []NamedTest, leftOut []string, err error) {
	subnets, groups := b.inhabited()
	kinds := b.kindsOf(subnets)
	for _, bound := range []struct {
		pairs, most int
		of          string
	}{
		{(len(kinds) + 1) * (len(kinds) + len(groups)), maxTestsOf, "subnets and groups that differ"},
		{(len(subnets) + 1) * (len(subnets) + len(groups)), maxTestsHeld, "subnets and groups"},
	} {
		if bound.pairs > bound.most {
			return nil, nil, fmt.Errorf("%d pairs of %s: allowed are %d; give the files of fewer virtual networks: %s", bound.pairs, bound.of, bound.most, networksOf(subnets))
		}
	}
	targets := slices.Clone(kinds)
	for _, group := range groups {
		targets = append(targets, testKind{group})
	}
	var rows []testRow
	for i, from := range append([]testKind{{internetEnd}}, kinds...) {
		row := testRow{from: from}
		if i > 0 {
			targets = targets[:len(kinds)]
		}
		for _, to := range targets {
			one := to[0]
			if one == from[0] {
				if len(to) == 1 {
					continue
				}
				one = to[1]
			}
			passes, err := b.granted(from[0], one)
			if err != nil {
				leftOut = append(leftOut, fmt.Sprintf("%s to %s: %v", ruleset.Listed(from), ruleset.Listed(to), err))
				continue
			}
			row.add(to, passes)
		}
		for ends := range slices.Chunk(from, mostEnds) {
			rows = joinRow(rows, testRow{ends, slices.Clone(row.cells)})
		}
	}
	names := map[string]int{}
	for i := range rows {
		for j := range rows[i].cells {
			for _, t := range rows[i].tests(&rows[i].cells[j]) {
				switch r := b.Test(&t.PolicyTest); r.Result {
				case TestFail:
					leftOut = append(leftOut, t.Name+": it holds for some of these ends only")
					continue
				case TestError:
					leftOut = append(leftOut, t.Name+": "+r.Message)
					continue
				}
				if names[t.Name]++; names[t.Name] > 1 {
					t.Name = fmt.Sprintf("%s (%d)", t.Name, names[t.Name])
				}
				tests = append(tests, t)
			}
		}
	}
	return tests, leftOut, nil
}

// networksOf are the virtual networks of subnets, those with the most first.
func networksOf(subnets []inhabited) string {
	count := map[string]int{}
	for _, sub := range subnets {
		count[sub.VirtualNetwork.Name]++
	}
	names := slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
	return ruleset.Listed(texts(names, func(name string) string { return fmt.Sprintf("%s has %d", name, count[name]) }))
}

// inhabited are the subnets and groups with network interfaces, as ends.
func (b *Between) inhabited() (subnets []inhabited, groups []string) {
	in := map[*policy.Subnet]bool{}
	for _, e := range b.snapshot.Endpoints() {
		in[e.Subnet] = in[e.Subnet] || e.NetworkInterface != nil
	}
	for _, v := range b.snapshot.Policy.VirtualNetworks {
		for _, sub := range v.Subnets {
			if end := "subnet:" + v.Name + "/" + sub.Name; in[sub] && b.finds(end) {
				subnets = append(subnets, inhabited{sub, end})
			}
		}
	}
	for _, g := range b.snapshot.Policy.ApplicationSecurityGroups {
		if end := "asg:" + g.Name; b.finds(end) {
			groups = append(groups, end)
		}
	}
	return subnets, groups
}

func (b *Between) finds(end string) bool {
	_, err := b.End(end)
	return err == nil
}

// testRow is what some senders may do. The targets of a cell are treated alike.
type testRow struct {
	from  []string
	cells []testCell
}

type testCell struct {
	to []string
	granted
}

// granted is what passes between two ends. aside are addresses that stand for the receiver, and at which
// something else passes: among networks, tests leave them out.
type granted struct {
	grants []grant
	aside  []string
}

// grant is packets that pass.
type grant struct {
	from, to part
	services []analysis.Service // with equal ports; nil: every packet
	but      []analysis.Service // what does not pass, where services is nil
}

// part is which addresses of an end a grant is for: all when texts is nil, else these, or all but these.
type part struct {
	texts []string
	not   bool
}

func (r *testRow) add(to []string, g granted) {
	for ends := range slices.Chunk(to, mostEnds) {
		at := slices.IndexFunc(r.cells, func(c testCell) bool {
			return fmt.Sprint(c.granted) == fmt.Sprint(g) && len(c.to)+len(ends) <= mostEnds
		})
		if at < 0 {
			at = len(r.cells)
			r.cells = append(r.cells, testCell{granted: g})
		}
		r.cells[at].to = slices.Concat(r.cells[at].to, ends)
	}
}

// joinRow adds a row to those with the same cells.
func joinRow(rows []testRow, row testRow) []testRow {
	for i := range rows {
		if fmt.Sprint(rows[i].cells) == fmt.Sprint(row.cells) && len(rows[i].from)+len(row.from) <= mostEnds {
			rows[i].from = slices.Concat(rows[i].from, row.from)
			return rows
		}
	}
	return append(rows, row)
}

// tests are those of a cell: each grant is allowed, and nothing else is.
func (r *testRow) tests(c *testCell) (tests []NamedTest) {
	var outside []NamedTest // what a grant leaves out
	var of []int            // its grant
	var passes []TestPackets
	for i := range c.grants {
		t, left := r.allowed(c, &c.grants[i])
		tests = append(tests, t)
		for range left {
			of = append(of, i)
		}
		outside = append(outside, left...)
		p := TestPackets{Services: t.Services}
		if g := &c.grants[i]; !g.from.not {
			p.From = g.from.texts
		}
		if g := &c.grants[i]; !g.to.not {
			p.To = g.to.texts
		}
		passes = append(passes, p)
	}
	for i := range outside {
		t := &outside[i]
		for j := range passes {
			if j != of[i] && !c.grants[j].from.not && !c.grants[j].to.not {
				t.Except = append(t.Except, passes[j])
			}
		}
	}
	tests = append(tests, outside...)
	rest := NamedTest{fmt.Sprintf("%s reaches nothing else of %s", endNames(r.from), endNames(c.to)),
		PolicyTest{TestPackets: TestPackets{From: r.from, To: c.to}, Expect: ruleset.Deny, Except: append(c.apart(), passes...)}}
	switch {
	case len(c.grants) == 0:
		rest.Name = fmt.Sprintf("%s does not reach %s", endNames(r.from), endNames(c.to))
	case slices.ContainsFunc(passes, func(p TestPackets) bool { return p.From == nil && p.To == nil && p.Services == nil }):
		return tests // there is nothing else
	}
	return append(tests, rest)
}

// apart are the addresses that a cell's tests leave out.
func (c *testCell) apart() []TestPackets {
	if c.aside == nil {
		return nil
	}
	return []TestPackets{{To: c.aside}}
}

// allowed is the test of a grant. left are tests that the addresses which it leaves out are denied.
func (r *testRow) allowed(c *testCell, g *grant) (t NamedTest, left []NamedTest) {
	packets := TestPackets{From: r.from, To: c.to, Services: icmpOfBoth(g.services)}
	on := ""
	if g.services != nil {
		on = " on " + serviceText(g.services)
	}
	names := [2]string{endNames(r.from), endNames(c.to)}
	except := c.apart()
	for side, p := range []part{g.from, g.to} {
		out := TestPackets{Services: packets.Services}
		ends := []*[]string{&packets.From, &packets.To}[side]
		switch {
		case p.not:
			denied, others := packets, names
			*[]*[]string{&denied.From, &denied.To}[side], *[]*[]string{&out.From, &out.To}[side] = p.texts, p.texts
			others[side] = ruleset.Listed(p.texts)
			left = append(left, NamedTest{fmt.Sprintf("%s reaches nothing else of %s%s", others[0], others[1], on), PolicyTest{TestPackets: denied, Expect: ruleset.Deny, Except: c.apart()}})
			except = append(except, out)
			names[side] += " but " + ruleset.Listed(p.texts)
		case p.texts != nil:
			*ends, names[side] = p.texts, ruleset.Listed(p.texts)
		}
	}
	for _, s := range g.but {
		one := icmpOfBoth([]analysis.Service{s})
		except = append(except, TestPackets{Services: one})
		on += " but on " + serviceText(one)
		left = append(left, NamedTest{fmt.Sprintf("%s does not reach %s on %s", names[0], names[1], serviceText(one)),
			PolicyTest{TestPackets: TestPackets{From: packets.From, To: packets.To, Services: one}, Expect: ruleset.Deny, Except: c.apart()}})
	}
	return NamedTest{fmt.Sprintf("%s reaches %s%s", names[0], names[1], on), PolicyTest{TestPackets: packets, Expect: ruleset.Allow, Except: except}}, left
}

// icmpOfBoth adds ICMPv6 to ICMP.
func icmpOfBoth(services []analysis.Service) (list []analysis.Service) {
	for _, s := range services {
		list = append(list, s)
		if s.Protocol == packet.ProtoICMP {
			list = append(list, analysis.Service{Protocol: packet.ProtoICMPv6})
		}
	}
	return list
}

// endNames are ends in a sentence.
func endNames(ends []string) string {
	names := make([]string, len(ends))
	for i, end := range ends {
		kind, name, _ := strings.Cut(end, ":")
		switch kind {
		case internetEnd:
			names[i] = "the internet"
		case "asg":
			names[i] = "group " + name
		default:
			names[i] = name
		}
	}
	return ruleset.Listed(names)
}

// serviceText is such as "TCP, UDP 53".
func serviceText(services []analysis.Service) string {
	var names []string
	for _, s := range services {
		if s.Protocol != packet.ProtoICMPv6 { // ICMP stands for both
			names = append(names, packet.ProtocolName(s.Protocol))
		}
	}
	return strings.TrimSpace(strings.Join(names, ", ") + " " + strings.Join(texts(services[0].Ports, analysis.PortRange), ", "))
}
