package verdict

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// The stages of a Chain, in the order in which they are asked. Inbound the subnet's NSG comes first,
// outbound the NIC's.
const (
	ChainClosed = iota // whether the internet is shut out, see topology.Snapshot.ClosedTo
	ChainAdmin         // rule collections
	ChainFirst         // an NSG
	ChainSecond
	chainStages
)

// Chain is what judges the packets that an endpoint sends or receives, as lists for questions about all
// packets. It says for each packet what Verdict says.
type Chain struct {
	Lists analysis.Chain
	rules [chainStages][]ChainRule
}

// ChainRule is what a rule of a Chain stands for: a rule of a group, a service of the platform, or
// that the endpoint is closed.
type ChainRule struct {
	Group    *topology.Group // nil: no rule of a policy
	Rule     *ruleset.Rule
	Resolved *classifier.Rule // what Rule matches; of a group only
	Service  topology.Service // that the packets ask for; with a rule, one that names it
	Closed   bool
}

// At is the rule that a decision about the chain names; the zero value where no rule decided.
func (c *Chain) At(stage, rule int) ChainRule {
	if stage < 0 || rule < 0 {
		return ChainRule{}
	}
	return c.rules[stage][rule]
}

// Asks reports whether rules of a group are among those of the chain.
func (c *Chain) Asks(nsg *ruleset.NSG) bool {
	for _, rules := range c.rules {
		if slices.ContainsFunc(rules, func(r ChainRule) bool { return r.Group != nil && r.Group.NSG == nsg }) {
			return true
		}
	}
	return false
}

// Has reports whether the chain has a rule of the same name in the NSG of the same id.
func (c *Chain) Has(nsg *ruleset.NSG, r *ruleset.Rule) bool {
	for _, rules := range c.rules {
		for i := range rules {
			if g := rules[i].Group; g != nil && strings.EqualFold(g.NSG.ID, nsg.ID) && strings.EqualFold(rules[i].Rule.QualifiedName(), r.QualifiedName()) {
				return true
			}
		}
	}
	return false
}

// Chains makes chains. Endpoints that share a group share its list. Not safe for concurrent use.
type Chains struct {
	snapshot *topology.Snapshot
	lists    map[chainKey]*chainList
}

// chainKey tells lists apart: a group's table, or the rule collections of a network, and how many
// services stand before it.
type chainKey struct {
	table    *topology.Table
	admin    *topology.Stage
	services int
}

type chainList struct {
	list  *analysis.List
	rules []ChainRule
}

// NewChains makes the chains of a snapshot's endpoints and groups.
func NewChains(s *topology.Snapshot) *Chains { return &Chains{s, map[chainKey]*chainList{}} }

var passes = &chainList{list: analysis.NewList(nil)}

// Of is the chain of what an endpoint receives (Inbound) or sends.
func (c *Chains) Of(e *topology.Endpoint, d ruleset.Direction) *Chain {
	if sources := c.snapshot.ClosedSources(e); d == ruleset.Inbound && len(sources) > 0 {
		return c.behind(closedList(sources), e, d)
	}
	return c.OnTheWay(e, d)
}

// OnTheWay is Of for packets whose way is known: the way says whether the endpoint is closed to them.
func (c *Chains) OnTheWay(e *topology.Endpoint, d ruleset.Direction) *Chain {
	return c.behind(passes, e, d)
}

func (c *Chains) behind(closed *chainList, e *topology.Endpoint, d ruleset.Direction) *Chain {
	stages, admin, services := e.Inbound, e.AdminInbound, []topology.ServiceEnd(nil)
	if d == ruleset.Outbound {
		stages, admin, services = e.Outbound, e.AdminOutbound, e.Services()
	}
	lists := [chainStages]*chainList{closed, c.admin(admin, services), passes, passes}
	for i := range stages {
		lists[place(&stages[i])] = c.nsg(&stages[i], services)
	}
	if len(stages) == 0 && len(services) > 0 {
		lists[ChainSecond] = c.services(services)
	}
	return newChain(lists)
}

// services is the list of an endpoint without an NSG: the services still pass as such.
func (c *Chains) services(services []topology.ServiceEnd) *chainList {
	key := chainKey{services: len(services)}
	if l := c.lists[key]; l != nil {
		return l
	}
	l := &chainList{}
	c.lists[key] = l
	var rules []analysis.Rule
	for i := range services {
		rules = l.pass(rules, &services[i])
	}
	l.list = analysis.NewList(rules)
	return l
}

// OfGroup is the chain of a group alone.
func (c *Chains) OfGroup(g *topology.Group, d ruleset.Direction) *Chain {
	s := topology.Stage{Direction: d, Group: g, Table: &g.Inbound}
	if d == ruleset.Outbound {
		s.Table = &g.Outbound
	}
	return newChain([chainStages]*chainList{passes, passes, c.nsg(&s, nil), passes})
}

// place is an NSG's stage: where the subnet has none, the NIC's still has its own.
func place(s *topology.Stage) int {
	if (s.Association == topology.SubnetAssociation) == (s.Direction == ruleset.Inbound) {
		return ChainFirst
	}
	return ChainSecond
}

func newChain(lists [chainStages]*chainList) *Chain {
	c := &Chain{}
	for i, l := range lists {
		c.Lists = append(c.Lists, l.list)
		c.rules[i] = l.rules
	}
	return c
}

func closedList(sources []netip.Prefix) *chainList {
	l := &chainList{}
	rules := l.add(nil, classifier.Rule{Sources: sources, Destinations: ruleset.Everywhere(), SourcePorts: everyPort, DestinationPorts: everyPort},
		ruleset.Deny, ChainRule{Closed: true})
	l.list = analysis.NewList(rules)
	return l
}

var everyPort = []ruleset.PortRange{ruleset.AllPorts}

func (l *chainList) add(rules []analysis.Rule, r classifier.Rule, a ruleset.Access, of ChainRule) []analysis.Rule {
	l.rules = append(l.rules, of)
	return append(rules, analysis.Rule{Rule: r, Access: a})
}

// nsg is the list of one NSG: what it says of the platform's services, see judgeService, then its
// rules.
func (c *Chains) nsg(s *topology.Stage, services []topology.ServiceEnd) *chainList {
	key := chainKey{table: s.Table, services: len(services)}
	l := c.lists[key]
	if l != nil {
		return l
	}
	l = &chainList{}
	c.lists[key] = l
	resolved := s.Table.Resolved()
	var rules []analysis.Rule
	for i := range services {
		for j := range resolved {
			if r, ok := narrowed(&resolved[j], &services[i]); ok && s.Table.NamesService(j) {
				rules = l.add(rules, r, s.Table.Rules[j].Access,
					ChainRule{Group: s.Group, Rule: &s.Table.Rules[j], Resolved: &resolved[j], Service: services[i].Service})
			}
		}
		rules = l.pass(rules, &services[i])
	}
	for j := range resolved {
		rules = l.add(rules, resolved[j], s.Table.Rules[j].Access, ChainRule{Group: s.Group, Rule: &s.Table.Rules[j], Resolved: &resolved[j]})
	}
	l.list = analysis.NewList(rules)
	return l
}

// pass lets the packets for a service pass, which the rules behind it are not asked about.
func (l *chainList) pass(rules []analysis.Rule, s *topology.ServiceEnd) []analysis.Rule {
	return l.add(rules, serviceRule(s), ruleset.Allow, ChainRule{Service: s.Service})
}

func serviceRule(s *topology.ServiceEnd) classifier.Rule {
	return classifier.Rule{Protocol: s.Protocol, Sources: ruleset.Everywhere(), SourcePorts: everyPort,
		Destinations:     []netip.Prefix{netip.PrefixFrom(s.Address, s.Address.BitLen())},
		DestinationPorts: []ruleset.PortRange{{First: s.Port, Last: s.Port}}}
}

// narrowed is what a rule says of a service's packets; ok is false when it says nothing.
func narrowed(r *classifier.Rule, s *topology.ServiceEnd) (n classifier.Rule, ok bool) {
	n = serviceRule(s)
	n.Sources, n.SourcePorts = r.Sources, r.SourcePorts
	to := slices.ContainsFunc(r.Destinations, func(p netip.Prefix) bool { return p.Contains(s.Address) })
	port := slices.ContainsFunc(r.DestinationPorts, func(p ruleset.PortRange) bool { return p.First <= s.Port && s.Port <= p.Last })
	return n, to && port && (r.Protocol == ruleset.AnyProtocol || r.Protocol == s.Protocol)
}

// admin is the list of rule collections: of their matching rules the one with the lowest priority
// number decides, see judgeAdmin.
func (c *Chains) admin(stages []topology.Stage, services []topology.ServiceEnd) *chainList {
	if len(stages) == 0 {
		return passes
	}
	key := chainKey{admin: &stages[0], services: len(services)}
	l := c.lists[key]
	if l != nil {
		return l
	}
	l = &chainList{}
	c.lists[key] = l
	var rules []analysis.Rule
	for i := range services {
		rules = l.pass(rules, &services[i])
	}
	type adminRule struct {
		stage *topology.Stage
		rule  int
	}
	var all []adminRule
	for i := range stages {
		for j := range stages[i].Table.Rules {
			all = append(all, adminRule{&stages[i], j})
		}
	}
	slices.SortStableFunc(all, func(a, b adminRule) int {
		return cmp.Compare(a.stage.Table.Rules[a.rule].Priority, b.stage.Table.Rules[b.rule].Priority)
	})
	for _, a := range all {
		t := a.stage.Table
		resolved := &t.Resolved()[a.rule]
		rules = l.add(rules, *resolved, t.Rules[a.rule].Access, ChainRule{Group: a.stage.Group, Rule: &t.Rules[a.rule], Resolved: resolved})
	}
	l.list = analysis.NewList(rules)
	return l
}
