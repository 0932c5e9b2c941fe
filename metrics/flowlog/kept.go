package flowlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// What the numbers of rules and of flow ends mean goes on in a journal: a flow may outlive its rule, its NSG and the
// network interface, over any number of processes.

// keptEnd is a flow end as the next process reads it.
type keptEnd struct {
	Outbound bool
	Groups   [numVersions]*keptGroup
}

// keptGroup says which log it is in by what the log covers.
type keptGroup struct {
	Target                       string
	FromPolicy                   bool
	Folder, MAC, Head, ACL, Rule string
}

// keptRule is the rule of a slot as the next process reads it.
type keptRule struct {
	NSG, GUID, Name string
	Direction       ruleset.Direction
	Access          ruleset.Access
	Admin           bool
}

const endKeys, ruleKeys = "end ", "rule "

// put has the journal keep a value under a kind of keys and a number.
func (t *router) put(keys string, n uint32, value any) {
	text, err := json.Marshal(value)
	if err == nil {
		err = t.kept.Put(keys+strconv.Itoa(int(n)), text)
	}
	if err != nil {
		t.failed(fmt.Errorf("the next process can't be told where rows of its flows go: %w", err))
	}
}

// keepRule has the journal say what a slot means: flows that have no row yet may outlive their rule.
func (t *router) keepRule(slot uint32, r *rule) {
	if t.kept != nil {
		t.put(ruleKeys, slot, keptRule{r.nsg, r.guid, r.name, r.direction, r.access, r.admin})
	}
}

// resumeRule takes up the rule that a slot had in the last process.
func (t *router) resumeRule(slot uint64, text []byte) error {
	var k keptRule
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if slot >= topology.MaxRules {
		return fmt.Errorf("slot %d: must be below %d", slot, topology.MaxRules)
	}
	for int(slot) >= len(t.rules) {
		t.rules = append(t.rules, nil)
	}
	t.rules[slot] = []*rule{{nsg: k.NSG, guid: k.GUID, name: k.Name, direction: k.Direction, access: k.Access, admin: k.Admin}}
	return nil
}

// keep has the journal say what a number means, before anything is told under it.
func (t *router) keep(n uint32, e *flowEnd) {
	if t.kept == nil {
		return
	}
	k := keptEnd{Outbound: e.outbound}
	for v, g := range e.groups {
		if g == nil {
			continue
		}
		p := g.place
		k.Groups[v] = &keptGroup{Target: p.log.Target, FromPolicy: p.log.FromPolicy, Folder: p.folder, MAC: p.mac, Head: p.head, ACL: g.acl, Rule: g.rule}
		if p.end == 0 {
			p.end = n
		}
	}
	t.put(endKeys, n, &k)
}

// resume takes up the rules, and the ends of flows that earlier processes have numbered.
func (t *router) resume() error {
	values, err := t.kept.Values()
	if err != nil {
		return err
	}
	for key, text := range values {
		kind, number, _ := strings.Cut(key, " ")
		n, err := strconv.ParseUint(number, 10, 22)
		switch {
		case err != nil:
		case kind+" " == ruleKeys:
			err = t.resumeRule(n, text)
		default:
			err = t.resumeEnd(uint32(n), text)
		}
		if err != nil {
			return fmt.Errorf("the journal's %q: %.100q: %w", key, text, err)
		}
	}
	return nil
}

// resumeEnd takes up a flow's end. Where its log is none any more, its rows go nowhere.
func (t *router) resumeEnd(n uint32, text []byte) error {
	var k keptEnd
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("no end has number 0")
	}
	for int(n) >= len(t.ends) {
		t.ends = append(t.ends, flowEnd{})
	}
	e := flowEnd{outbound: k.Outbound}
	for v, g := range k.Groups {
		if g == nil {
			continue
		}
		if l := t.logAs(Version(v), g); l != nil {
			p := t.placeOf(l, g.Folder, g.MAC, func(string) string { return g.Head })
			if p.end == 0 {
				p.end = n
			}
			e.groups[v] = t.groupOf(p, g.ACL, g.Rule)
		}
	}
	if t.ends[n] = e; e.groups != [numVersions]*group{} {
		t.known[e] = n
	}
	return nil
}

// logAs is the log that covers what the log of another process did; nil: there is none any more.
func (t *router) logAs(v Version, g *keptGroup) *flowLog {
	i := slices.IndexFunc(t.logs, func(l *flowLog) bool {
		return l.Version == v && l.FromPolicy == g.FromPolicy && strings.EqualFold(l.Target, g.Target)
	})
	if i < 0 {
		return nil
	}
	return t.logs[i]
}

// groupAt is where an end's rows of a version gather; nil: nowhere.
func (t *router) groupAt(end uint32, v Version) *group {
	if int(end) >= len(t.ends) {
		return nil
	}
	return t.ends[end].groups[v]
}

// sweep gives back the numbers of ends that are not in use.
func (t *router) sweep(used []bool) {
	for _, p := range t.places {
		if p.end != 0 && !used[p.end] {
			p.end = 0
		}
	}
	for n, in := range used {
		e := t.ends[n]
		if !in {
			if t.known[e] == uint32(n) {
				delete(t.known, e)
			}
			t.ends[n] = flowEnd{}
			t.free = append(t.free, uint32(n))
			if err := t.kept.Delete(endKeys + strconv.Itoa(n)); err != nil {
				t.failed(err)
			}
			continue
		}
		for _, g := range e.groups {
			if g != nil && g.place.end == 0 {
				g.place.end = uint32(n)
			}
		}
	}
}
