package inspect

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/counter"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// RuleList holds the rules of the policy in force, by NSG and direction in the order in
// which they are tried.
type RuleList struct {
	Generation uint64 `json:"generation"`
	// Window is the time that the counters are about; absent when it is all the time since the daemon started.
	*Window
	Rules []Rule `json:"rules"`
	// NotListed are the sums of hits, packets and bytes within the window that no rule below has: of rules that are
	// gone, and of those with the fewest hits where a bucket has very many; absent without any.
	NotListed *RuleCounters `json:"notListed,omitempty"`
}

// Rule is one security rule in the words of ARM.
type Rule struct {
	NetworkSecurityGroup string   `json:"networkSecurityGroup"` // its id where the name is not unique
	Direction            string   `json:"direction"`
	Priority             int      `json:"priority"`
	Name                 string   `json:"name"`
	RuleName             string   `json:"ruleName"` // securityRules/NAME or defaultSecurityRules/NAME
	Access               string   `json:"access"`
	Protocol             string   `json:"protocol"`
	Sources              []string `json:"sources"` // prefixes, tags, * or ids of application security or network groups
	SourcePorts          []string `json:"sourcePorts"`
	Destinations         []string `json:"destinations"`
	DestinationPorts     []string `json:"destinationPorts"`
	// Counters are absent in an answer without a daemon.
	Counters *RuleCounters `json:"counters,omitempty"`
}

// RuleCounters are those of a rule; see ask.RuleCounters.
type RuleCounters = ask.RuleCounters

// RuleFilter chooses rules; the zero value takes all.
type RuleFilter struct {
	NetworkSecurityGroup string // name or id
	// Unused leaves only rules that decided nothing and carry no flow's packets.
	Unused bool
	// Since counts what the rules decided and carried within so long; 0: since the daemon started.
	Since time.Duration
}

// RuleStream is a RuleList whose rules are made one at a time: a policy has a million at most. Safe for concurrent use.
type RuleStream struct {
	RuleList // without rules
	snapshot *topology.Snapshot
	counts   []counter.Rule // by slot; nil: none are shown
	only     *ruleset.NSG   // nil: all
	unused   bool
}

// Each yields the rules until yield returns false.
func (s *RuleStream) Each(yield func(*Rule) bool) {
	eachRule(s.snapshot, s.only, func(label string, t *topology.Table, i int) bool {
		r, ok := describeRule(label, t, i, s.counts, s.unused)
		return !ok || yield(&r)
	})
}

// Rules lists the rules of the running policy with their counters. The error is about an NSG that the policy lacks.
func (s *Service) Rules(filter RuleFilter) (*RuleStream, error) {
	e := s.options.Engine
	snapshot := e.Snapshot()
	if filter.Since != 0 {
		return s.rulesSince(snapshot, filter)
	}
	return StreamRules(snapshot, e.Counters().Rules(len(e.Registry().Keys())), filter)
}

// rulesSince is Rules for a time that is remembered.
func (s *Service) rulesSince(snapshot *topology.Snapshot, filter RuleFilter) (*RuleStream, error) {
	if err := checkSince(filter.Since); err != nil {
		return nil, err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	span, err := s.span(filter.Since)
	if err != nil {
		return nil, err
	}
	registry := s.options.Engine.Registry()
	counts, inForce, rest := make([]counter.Rule, len(registry.Keys())), snapshot.MarkSlots(nil), span.OtherHits
	span.Hits(func(_ time.Time, generation uint64, h *history.Hit) {
		to := &rest
		if _, known := registry.At(h.Slot, generation); known && int(h.Slot) < min(len(inForce), len(counts)) && inForce[h.Slot] {
			to = &counts[h.Slot]
		}
		to.Hits += h.Hits
		to.Packets += h.Packets
		to.Bytes += h.Bytes
	})
	list, err := StreamRules(snapshot, counts, filter)
	if err != nil {
		return nil, err
	}
	list.Window = &Window{span.From, span.To}
	if rest != (counter.Rule{}) {
		list.NotListed = &RuleCounters{Hits: rest.Hits, Packets: rest.Packets, Bytes: rest.Bytes}
	}
	return list, nil
}

// Rules lists a snapshot's rules. counts are by slot; nil leaves counters out. The error is
// about an NSG that the policy lacks.
func Rules(s *topology.Snapshot, counts []counter.Rule, filter RuleFilter) (*RuleList, error) {
	stream, err := StreamRules(s, counts, filter)
	if err != nil {
		return nil, err
	}
	list := stream.RuleList
	stream.Each(func(r *Rule) bool {
		list.Rules = append(list.Rules, *r)
		return true
	})
	return &list, nil
}

// StreamRules is Rules without making all rules at once.
func StreamRules(s *topology.Snapshot, counts []counter.Rule, filter RuleFilter) (*RuleStream, error) {
	stream := &RuleStream{RuleList: RuleList{Generation: s.Generation, Rules: []Rule{}}, snapshot: s, counts: counts, unused: filter.Unused}
	if filter.NetworkSecurityGroup != "" {
		nsg, err := s.Policy.NetworkSecurityGroup(filter.NetworkSecurityGroup)
		if err != nil {
			return nil, err
		}
		stream.only = nsg
	}
	return stream, nil
}

// eachRule yields every rule of a snapshot, or of one NSG, until yield returns false.
func eachRule(s *topology.Snapshot, only *ruleset.NSG, yield func(label string, t *topology.Table, i int) bool) {
	seen := map[*ruleset.NSG]bool{}
	for _, g := range s.Groups {
		// An NSG is compiled once for each network that it serves, with the same slots.
		if seen[g.NSG] || only != nil && g.NSG != only {
			continue
		}
		seen[g.NSG] = true
		for _, t := range []*topology.Table{&g.Inbound, &g.Outbound} {
			for i := range t.Rules {
				if !yield(g.Label, t, i) {
					return
				}
			}
		}
	}
}

func describeRule(label string, t *topology.Table, i int, counts []counter.Rule, unused bool) (Rule, bool) {
	var counters *RuleCounters
	if slot := int(t.Slots[i]); slot < len(counts) {
		c := counts[slot]
		if unused && (c.Hits > 0 || c.Packets > 0) {
			return Rule{}, false
		}
		counters = &RuleCounters{Hits: c.Hits, Packets: c.Packets, Bytes: c.Bytes}
	}
	r := &t.Rules[i]
	return Rule{
		NetworkSecurityGroup: label,
		Direction:            r.Direction.String(),
		Priority:             r.Priority,
		Name:                 r.Name,
		RuleName:             r.QualifiedName(),
		Access:               r.Access.String(),
		Protocol:             r.Protocol.String(),
		Sources:              r.Source.Texts(),
		SourcePorts:          portTexts(r.SourcePorts),
		Destinations:         r.Destination.Texts(),
		DestinationPorts:     portTexts(r.DestinationPorts),
		Counters:             counters,
	}, true
}

func portTexts(list []ruleset.PortRange) []string {
	texts := make([]string, len(list))
	for i, r := range list {
		texts[i] = r.String()
	}
	return texts
}
