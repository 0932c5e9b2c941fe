package inspect

import (
	"fmt"
	"time"

	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

const (
	// MaxViewedRules bounds the rules of a RuleView.
	MaxViewedRules = 4000
	// ActivityParts is how many sums RuleActivity has of each rule, and activityPart is what one spans.
	ActivityParts = 30
	activityPart  = 2 * time.Minute
)

// RuleView holds the rules that judge the packets of a network interface, or those of an NSG, in the order in which they
// are asked.
type RuleView struct {
	Generation uint64 `json:"generation"`
	// Seconds is the time that the rates are measured over; 0: this is the first reading, and all rates are 0.
	Seconds float64 `json:"seconds"`
	// Remembers says that the rules' activity is known.
	Remembers bool        `json:"remembers"`
	Stages    []RuleStage `json:"stages"`
	// More counts the rules beyond MaxViewedRules.
	More int `json:"more"`
}

// RuleStage is one direction of an NSG or of a collection of admin rules.
type RuleStage struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Direction            string `json:"direction"`
	// Association is networkManager, subnet or networkInterface; empty in a view of an NSG.
	Association string       `json:"association,omitempty"`
	Rules       []ViewedRule `json:"rules"`
}

// ViewedRule is a rule with what it does.
type ViewedRule struct {
	Rule
	HitsPerSecond    float64    `json:"hitsPerSecond"`
	PacketsPerSecond float64    `json:"packetsPerSecond"`
	BytesPerSecond   float64    `json:"bytesPerSecond"`
	LastHit          *time.Time `json:"lastHit,omitempty"` // absent: never
	// Activity are its hits of late, in ActivityParts of two minutes each, the last one up to now; absent where it had none.
	Activity []uint64 `json:"activity,omitempty"`
}

// RuleView shows the rules of a network interface, by name or id, or else of an NSG. The error is about the question.
func (s *Service) RuleView(networkInterface, networkSecurityGroup string) (*RuleView, error) {
	snapshot := s.Snapshot()
	view := &RuleView{Generation: snapshot.Generation, Remembers: s.options.History != nil, Stages: []RuleStage{}}
	var stages []topology.Stage
	withAssociation := networkInterface != ""
	if withAssociation {
		nic, err := snapshot.Policy.NetworkInterface(networkInterface)
		if err != nil {
			return nil, err
		}
		stages = stagesOf(snapshot, nic)
	} else {
		if networkSecurityGroup == "" {
			return nil, fmt.Errorf("networkInterface, networkSecurityGroup: one of both is needed")
		}
		g, err := snapshot.Policy.NetworkSecurityGroup(networkSecurityGroup)
		if err != nil {
			return nil, err
		}
		for _, group := range snapshot.Groups {
			if group.NSG == g {
				stages = []topology.Stage{{Direction: ruleset.Inbound, Group: group, Table: &group.Inbound}, {Direction: ruleset.Outbound, Group: group, Table: &group.Outbound}}
				break
			}
		}
	}
	activity := s.activity(snapshot)
	b := &s.top
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touch()
	now := readCounts(s.options.Engine)
	b.counters.take(now, s.options.Now())
	view.Seconds = b.counters.length.Seconds()
	last := s.options.Engine.Counters().LastHits(len(now.rules))
	left := MaxViewedRules
	for i := range stages {
		st := &stages[i]
		shown := RuleStage{NetworkSecurityGroup: st.Group.Label, Direction: st.Direction.String(), Rules: []ViewedRule{}}
		if withAssociation {
			shown.Association = st.Association.String()
		}
		for j := range st.Table.Rules {
			if left == 0 {
				view.More += len(st.Table.Rules) - j
				break
			}
			left--
			rule, _ := describeRule(st.Group.Label, st.Table, j, now.rules, false)
			slot := int(st.Table.Slots[j])
			rate := b.counters.rule(slot)
			v := ViewedRule{Rule: rule, HitsPerSecond: rounded(rate.hits), PacketsPerSecond: rounded(rate.packets), BytesPerSecond: rounded(rate.bytes), Activity: activity[uint32(slot)]}
			if slot < len(last) && last[slot] > 0 {
				at := time.Unix(0, last[slot]).UTC()
				v.LastHit = &at
			}
			shown.Rules = append(shown.Rules, v)
		}
		view.Stages = append(view.Stages, shown)
	}
	return view, nil
}

// stagesOf are the stages of a network interface's first address, inbound before outbound, each direction in the order of
// evaluation.
func stagesOf(s *topology.Snapshot, nic *policy.NetworkInterface) (stages []topology.Stage) {
	e := s.Endpoint(nic, nic.IPConfigurations[0].Address)
	if e == nil {
		return nil
	}
	for _, list := range [][]topology.Stage{e.AdminInbound, e.Inbound, e.AdminOutbound, e.Outbound} {
		stages = append(stages, list...)
	}
	return stages
}

// activity are the hits of rules of late, by slot.
func (s *Service) activity(snapshot *topology.Snapshot) map[uint32][]uint64 {
	if s.options.History == nil {
		return nil
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	const whole = ActivityParts * activityPart
	now, sums, registry := s.options.Now(), map[uint32][]uint64{}, s.options.Engine.Registry()
	s.options.History.Since(now.Add(-whole)).Hits(func(from time.Time, generation uint64, h *history.Hit) {
		part := ActivityParts - 1 - int(now.Sub(from)/activityPart)
		if _, known := registry.At(h.Slot, generation); !known || h.Hits == 0 || part < 0 || part >= ActivityParts {
			return
		}
		if sums[h.Slot] == nil {
			sums[h.Slot] = make([]uint64, ActivityParts)
		}
		sums[h.Slot][part] += h.Hits
	})
	return sums
}
