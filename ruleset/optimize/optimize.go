// Package optimize finds fewer rules with the same meaning: it takes rules out that others do without, and makes one of rules that
// differ in one field. What it finds holds for every packet, whatever the members of application security groups are and whatever
// addresses service tags have: of these nothing is assumed. Package analysis proves each step, and the whole at the end.
package optimize

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// View is what rules match in some subnets, each rule at its index: there tags mean the same.
type View []classifier.Rule

// Options choose how rules are understood.
type Options struct {
	// MaxStates bounds the work of each question; see analysis.Options.
	MaxStates int
	// Nowhere says that no subnet has the rules: nothing is known of what VirtualNetwork and Internet stand for either.
	Nowhere bool
	// Together says whether one rule may name application security groups together; nil: never.
	Together func(ids []string) bool
}

// The kinds of steps.
const (
	Removed = "removed"
	Merged  = "merged"
)

// Step is one change. Hits and flow logs name other rules behind it.
type Step struct {
	Kind string
	// Rules are the names of the rule that goes, or of those that become one.
	Rules []string
	// Into is the name of the one rule, that of the first; empty for a rule that goes.
	Into string
	// Field is what the one rule has of all, such as "sources".
	Field string
	// Because are the rules that do what a rule that goes did, or that come before it.
	Because []string
	// Shadowed says that the rule that goes never decided.
	Shadowed bool
}

// Result is what became of rules.
type Result struct {
	// Rules are the user's rules, by priority: as many as before, or fewer.
	Rules []ruleset.Rule
	Steps []Step
	// Undecided says that the proof of the whole needs more states. Nothing has changed then.
	Undecided bool
}

// Rules makes fewer of one direction's rules, which are by priority with the default rules last. views are what they match, at
// least one.
func Rules(rules []ruleset.Rule, views []View, o Options) *Result {
	w := &work{Options: o, rules: slices.Clone(rules), symbols: map[string][]netip.Prefix{}}
	for _, v := range views {
		w.views = append(w.views, slices.Clone(v))
	}
	for {
		before := len(w.rules)
		w.remove()
		w.merge()
		if len(w.rules) == before {
			break
		}
	}
	r := &Result{Rules: w.users(), Steps: w.steps}
	for i, v := range views {
		if !w.equal(list(rules, v), list(w.rules, w.views[i])) {
			w.rules = rules
			return &Result{Rules: w.users(), Undecided: true}
		}
	}
	return r
}

// work is rules on their way.
type work struct {
	Options
	rules []ruleset.Rule
	views []View
	steps []Step
	// symbols are addresses that stand for peers of whom nothing is known, by their text.
	symbols map[string][]netip.Prefix
}

func (w *work) users() (rules []ruleset.Rule) {
	for i := range w.rules {
		if !w.rules[i].Default {
			rules = append(rules, w.rules[i])
		}
	}
	return rules
}

func list(rules []ruleset.Rule, v View) *analysis.List {
	all := make([]analysis.Rule, len(rules))
	for i := range rules {
		all[i] = analysis.Rule{Rule: v[i], Access: rules[i].Access}
	}
	return analysis.NewList(all)
}

func (w *work) equal(a, b *analysis.List) bool {
	return analysis.Equivalent(analysis.Chain{a}, analysis.Chain{b}, analysis.Options{MaxStates: w.MaxStates}).Holds
}

// stays reports a rule that stays as it is. Rules for a service of the platform are asked by themselves too.
func stays(r *ruleset.Rule) bool {
	return r.Default || ruleset.PlatformServiceOf(r.Source.Tag) != nil || ruleset.PlatformServiceOf(r.Destination.Tag) != nil
}

// unknown reports a peer that may stand for any addresses.
func (w *work) unknown(p *ruleset.Peer) bool {
	return len(p.ApplicationSecurityGroups) > 0 || p.Tag != "" && (w.Nowhere || !ruleset.IsBuiltInTag(p.Tag))
}

// text is the same for peers that are the same.
func text(p *ruleset.Peer) string {
	texts := slices.Clone(p.Texts())
	for i := range texts {
		texts[i] = strings.ToLower(texts[i])
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// symbol is an address of each family for an unknown peer, or for each of its groups: one of the ways in which it may be.
func (w *work) symbol(p *ruleset.Peer) (list []netip.Prefix) {
	if each := w.apart(p); len(each) > 1 {
		for i := range each {
			list = append(list, w.symbol(&each[i])...)
		}
		return list
	}
	key := text(p)
	if w.symbols[key] == nil {
		n := len(w.symbols) + 1
		four := netip.AddrFrom4([4]byte{240, byte(n >> 16), byte(n >> 8), byte(n)})
		six := netip.AddrFrom16([16]byte{0: 1, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}) // 100::/64 is for discarding
		w.symbols[key] = []netip.Prefix{netip.PrefixFrom(four, 32), netip.PrefixFrom(six, 128)}
	}
	return w.symbols[key]
}

// assigned is a view with addresses in the place of unknown peers.
func (w *work) assigned(v View, of func(i int, p *ruleset.Peer, source bool) []netip.Prefix) View {
	out := slices.Clone(v)
	for i := range w.rules {
		r := &w.rules[i]
		if w.unknown(&r.Source) {
			out[i].Sources = of(i, &r.Source, true)
		}
		if w.unknown(&r.Destination) {
			out[i].Destinations = of(i, &r.Destination, false)
		}
	}
	return out
}

// known reports that nothing is unknown: what the rules match is all there is to them.
func (w *work) known() bool {
	return !slices.ContainsFunc(w.rules, func(r ruleset.Rule) bool { return w.unknown(&r.Source) || w.unknown(&r.Destination) })
}

// symbolic are the views in which each unknown peer is an address of its own.
func (w *work) symbolic() (lists []*analysis.List) {
	for _, v := range w.views {
		lists = append(lists, list(w.rules, w.assigned(v, func(_ int, p *ruleset.Peer, _ bool) []netip.Prefix { return w.symbol(p) })))
	}
	return lists
}

// apart is an unknown peer group by group.
func (w *work) apart(p *ruleset.Peer) (each []ruleset.Peer) {
	for _, id := range p.ApplicationSecurityGroups {
		each = append(each, ruleset.Peer{ApplicationSecurityGroups: []string{id}})
	}
	if each == nil {
		each = []ruleset.Peer{*p}
	}
	return each
}

// ends are the peers that a packet's addresses certainly are of; known ones are left out.
type ends struct{ source, destination ruleset.Peer }

// endsOf are those of the packets that rules match: of a list of groups, each group by itself.
func (w *work) endsOf(some []int) (list []ends) {
	seen := map[string]bool{}
	for _, i := range some {
		for _, s := range w.apart(&w.rules[i].Source) {
			for _, d := range w.apart(&w.rules[i].Destination) {
				var e ends
				if w.unknown(&s) {
					e.source = s
				}
				if w.unknown(&d) {
					e.destination = d
				}
				if key := text(&e.source) + "|" + text(&e.destination); !seen[key] {
					seen[key] = true
					list = append(list, e)
				}
			}
		}
	}
	return list
}

// includes reports that all addresses of an unknown peer, one group of a list at most, are of another one.
func includes(p, of *ruleset.Peer) bool {
	if len(of.ApplicationSecurityGroups) > 0 {
		return hasFold(p.ApplicationSecurityGroups, of.ApplicationSecurityGroups[0])
	}
	return of.Tag != "" && text(of) == text(p)
}

// worst is the view in which it matters most what becomes of rules of one access, the first of them at an index: the unknown peers of
// earlier rules have no address, so that these rules decide as much as they can; behind the first of them, those of the
// other access have all. What is equal then is equal whatever unknown peers are: a packet that these rules decide meets no
// more rules of the other access in any other view. A peer that certainly has the packet's address has all addresses.
func (w *work) worst(v View, first int, e *ends) View {
	return w.assigned(v, func(i int, p *ruleset.Peer, source bool) []netip.Prefix {
		of := &e.destination
		if source {
			of = &e.source
		}
		if includes(p, of) || i > first && w.rules[i].Access != w.rules[first].Access {
			return ruleset.Everywhere()
		}
		return nil
	})
}

// proven reports that a change to some rules changes no packet in any view.
func (w *work) proven(some []int, change func(rules []ruleset.Rule, v View) ([]ruleset.Rule, View)) bool {
	for _, e := range w.endsOf(some) {
		for _, v := range w.views {
			now := w.worst(v, some[0], &e)
			rules, then := change(slices.Clone(w.rules), slices.Clone(now))
			if !w.equal(list(w.rules, now), list(rules, then)) {
				return false
			}
		}
	}
	return true
}

// remove takes out the rules that others do without. Of known rules their roles are proof enough, as long as those stay
// that decide in their place.
func (w *work) remove() {
	known, gone := w.known(), make([]bool, len(w.rules))
	roles := make([][]analysis.Role, len(w.views))
	for i, l := range w.symbolic() {
		roles[i] = analysis.Roles(l, analysis.Options{MaxStates: w.MaxStates})
	}
	names := make([]string, len(w.rules))
	for i := range w.rules {
		names[i] = w.rules[i].Name
	}
	for i := len(w.rules) - 1; i >= 0; i-- { // those at the end first, so that indexes stay
		needed := slices.ContainsFunc(roles, func(r []analysis.Role) bool { return r[i].Needed || r[i].Undecided })
		changed := slices.ContainsFunc(roles, func(r []analysis.Role) bool {
			return slices.ContainsFunc(r[i].Instead, func(by int) bool { return by >= 0 && gone[by] })
		})
		if stays(&w.rules[i]) || needed || !(known && !changed) && !w.proven([]int{i}, func(rules []ruleset.Rule, v View) ([]ruleset.Rule, View) {
			return slices.Delete(rules, i, i+1), slices.Delete(v, i, i+1)
		}) {
			continue
		}
		step := Step{Kind: Removed, Rules: []string{names[i]}, Shadowed: true}
		for _, of := range roles {
			step.Shadowed = step.Shadowed && !of[i].Decides
			for _, by := range slices.Concat(of[i].Blockers, of[i].Instead) {
				if by >= 0 && !slices.Contains(step.Because, names[by]) {
					step.Because = append(step.Because, names[by])
				}
			}
		}
		w.steps = append(w.steps, step)
		gone[i] = true
		w.drop(i)
	}
}

func (w *work) drop(i int) {
	w.rules = slices.Delete(w.rules, i, i+1)
	for k := range w.views {
		w.views[k] = slices.Delete(w.views[k], i, i+1)
	}
}
