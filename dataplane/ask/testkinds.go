package ask

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// inhabited is a subnet with network interfaces, and its end.
type inhabited struct {
	*policy.Subnet
	end string
}

// testKind is ends that are treated alike: one stands for all.
type testKind []string

// kindsOf puts subnets together that rules, routes and translation do not tell apart.
func (b *Between) kindsOf(subnets []inhabited) (kinds []testKind) {
	ruled := b.ruledPrefixes()
	byKey := map[string]int{}
	for _, sub := range subnets {
		key := b.kindKey(sub.Subnet, ruled)
		at, known := byKey[key]
		if !known {
			at = len(kinds)
			byKey[key] = at
			kinds = append(kinds, nil)
		}
		kinds[at] = append(kinds[at], sub.end)
	}
	return kinds
}

// kindKey is equal for subnets of a kind: they have the same network, routes and gateway, the same rules judge them, and the same
// prefixes of rules and routes hold for their addresses. TestsOf holds each test for all its ends, whatever is missing here.
func (b *Between) kindKey(sub *policy.Subnet, ruled []netip.Prefix) string {
	var parts []string
	add := func(part ...any) { parts = append(parts, fmt.Sprint(part...)) }
	for i := range b.classes {
		c := &b.classes[i]
		if !slices.ContainsFunc(c.senders, func(e *topology.Endpoint) bool { return e.Subnet == sub && e.NetworkInterface != nil }) {
			continue
		}
		if c.Alike == 0 { // something leads to it alone
			return sub.ID
		}
	}
	add("network ", sub.VirtualNetwork.ID)
	if t := sub.RouteTable; t != nil {
		add("routes ", t.ID)
	}
	if g := sub.NATGateway; g != nil {
		add("gateway ", g.ID)
	}
	for _, e := range b.snapshot.Endpoints() {
		if e.Subnet != sub {
			continue
		}
		for _, d := range []ruleset.Direction{ruleset.Outbound, ruleset.Inbound} {
			chain := []any{e.NetworkInterface != nil, " ", d}
			for _, list := range b.chain(e, d).Lists {
				chain = append(chain, " ", b.number(list))
			}
			add(chain...)
		}
	}
	for i, p := range ruled {
		if slices.ContainsFunc(sub.Prefixes, p.Overlaps) {
			add("prefix ", i)
		}
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), "\n")
}

// ruledPrefixes are those that any rule or route names, each once.
func (b *Between) ruledPrefixes() (list []netip.Prefix) {
	seen := map[netip.Prefix]bool{}
	tables := map[*topology.Table]bool{}
	add := func(prefixes []netip.Prefix) {
		for _, p := range prefixes {
			if !seen[p] {
				seen[p] = true
				list = append(list, p)
			}
		}
	}
	for _, e := range b.snapshot.Endpoints() {
		for _, stage := range slices.Concat(e.Inbound, e.Outbound, e.AdminInbound, e.AdminOutbound) {
			if tables[stage.Table] {
				continue
			}
			tables[stage.Table] = true
			for _, r := range stage.Table.Resolved() {
				add(r.Sources)
				add(r.Destinations)
			}
		}
	}
	for _, t := range b.snapshot.Policy.RouteTables {
		for _, r := range t.Routes {
			add([]netip.Prefix{r.Prefix})
		}
	}
	return list
}
