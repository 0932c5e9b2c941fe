package inspect

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Diff compares two policies, see ask.Diff. What a partial policy leaves out is in the result's Open.
func Diff(old, new *Loaded, maxStates int) *ask.DiffResult {
	result := ask.Diff(old.Snapshot, new.Snapshot, ask.DiffOptions{MaxStates: maxStates, EndToEnd: true, OpenRules: slices.Concat(old.open, new.open)})
	result.Open = append(opened("old", old.documents.Unresolved), opened("new", new.documents.Unresolved)...)
	for i := range result.Changes {
		c := &result.Changes[i]
		c.File, c.Line, c.Column = new.placeOf(&c.New)
	}
	return result
}

// placeOf is where the rule of a decision is written.
func (l *Loaded) placeOf(d *ask.DiffDecision) (file string, line, column int) {
	for _, g := range l.Snapshot.Groups {
		if _, rule, _ := strings.Cut(d.RuleName, "/"); d.RuleName != "" && g.Label == d.NetworkSecurityGroup {
			return l.RulePosition(g.NSG, rule)
		}
	}
	return "", 0, 0
}

// OpenRules are rules that are not known, which a partial policy leaves out.
func (l *Loaded) OpenRules() []ask.DiffOpenRule { return l.open }

func openRules(documents *arm.Documents) (list []ask.DiffOpenRule) {
	for _, r := range documents.OpenRules() {
		if r.Inbound {
			list = append(list, ask.DiffOpenRule{Group: r.Group, Name: r.Name, Direction: ruleset.Inbound})
		}
		if r.Outbound {
			list = append(list, ask.DiffOpenRule{Group: r.Group, Name: r.Name, Direction: ruleset.Outbound})
		}
	}
	return list
}

func opened(policy string, faults ruleset.Faults) []ask.DiffOpen {
	list := []ask.DiffOpen{}
	for i := range faults {
		f := &faults[i]
		list = append(list, ask.DiffOpen{Policy: policy, File: f.File, Resource: f.Resource, Rule: f.Rule, Field: f.Field, Message: f.Message})
	}
	return list
}

// RunningQuestion asks what other files than those of the running policy would change.
type RunningQuestion struct {
	// Policy are absolute paths of files and folders, which the daemon reads; none: its own configuration and policy
	// as they are now, so that the answer is what a reload would change.
	Policy []string `json:"policy,omitempty"`
	// MaxStates is that of ask.DiffOptions.
	MaxStates int `json:"maxStates,omitempty"`
	// Limit is how many flows are listed at most, 1 to MaxFlowLimit; 0: DefaultCutLimit.
	Limit int `json:"limit,omitempty"`
	// MaxChanges is how many changes are listed at most; 0: all.
	MaxChanges int `json:"maxChanges,omitempty"`
}

// DefaultCutLimit is used when RunningQuestion.Limit is 0.
const DefaultCutLimit = 100

// Check says what no daemon could make of the question. The error begins with the field.
func (q *RunningQuestion) Check() error {
	for _, path := range q.Policy {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("policy: %q: allowed are absolute paths", path)
		}
	}
	if q.Limit < 0 || q.Limit > MaxFlowLimit {
		return fmt.Errorf("limit: \"%d\": allowed are 1 to %d", q.Limit, MaxFlowLimit)
	}
	if q.MaxChanges < 0 {
		return fmt.Errorf("maxChanges: \"%d\": allowed are numbers from 0, which means all", q.MaxChanges)
	}
	return ask.CheckMaxStates(q.MaxStates)
}

// RunningDiff is what files would change of the policy that runs.
type RunningDiff struct {
	*ask.DiffResult
	// MoreChanges counts the changes beyond MaxChanges, which are not listed.
	MoreChanges int `json:"moreChanges,omitempty"`
	// Attachments are those that would come, go or change; absent when none would.
	Attachments *AttachmentChanges `json:"attachments,omitempty"`
	// LiveFlows is absent where files are compared with files.
	LiveFlows *LiveFlows `json:"liveFlows,omitempty"`
}

// LiveFlows are the live flows that a policy would end.
type LiveFlows struct {
	Live int       `json:"live"`
	Cut  int       `json:"cut"`
	List []CutFlow `json:"list"`
	// Truncated is set when more would end than are listed.
	Truncated bool `json:"truncated"`
}

// CutFlow is a live flow that a policy would end.
type CutFlow struct {
	Flow
	// Reason is rule with the rule that denies the flow's next packet, another drop's name as verify has it, or
	// moved: the reload ends the flow, because an end or the way between the ends is not what it was. Its next packet
	// may begin another then.
	Reason               string `json:"reason"`
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	RuleName             string `json:"ruleName,omitempty"`
}

// ReasonMoved is CutFlow's own reason.
const ReasonMoved = "moved"

// Diff compares the policy that runs with files, as if they were reloaded. In a cluster it compares all networks of the two
// policies, and looks only at the live flows of this host. It changes nothing.
func (s *Service) Diff(q *RunningQuestion) (*RunningDiff, error) {
	s.comparing.Lock()
	defer s.comparing.Unlock()
	c, err := s.candidate(q)
	if err != nil {
		return nil, err
	}
	result := &RunningDiff{Attachments: c.attachments, LiveFlows: s.cuts(c.next, q.Limit)}
	result.DiffResult = ask.Diff(c.running, c.next, ask.DiffOptions{MaxStates: q.MaxStates, EndToEnd: true, OpenRules: c.openRules})
	result.Open = c.open
	if n := q.MaxChanges; n > 0 && len(result.Changes) > n {
		result.Changes, result.MoreChanges = result.Changes[:n], len(result.Changes)-n
	}
	return result, nil
}

// candidatePolicy is a policy beside the one that runs.
type candidatePolicy struct {
	running, next *topology.Snapshot
	attachments   *AttachmentChanges // nil: none changes
	openRules     []ask.DiffOpenRule
	open          []ask.DiffOpen

	files  *PolicyFiles
	policy *policy.Set
	target *Target // of the daemon's own configuration; nil: files that a question named
}

// candidate reads what a question compares with the policy that runs.
func (s *Service) candidate(q *RunningQuestion) (*candidatePolicy, error) {
	s.loading.Lock() // a reload changes what was left out
	defer s.loading.Unlock()
	return s.readCandidate(q)
}

// readCandidate is candidate while loading is held.
func (s *Service) readCandidate(q *RunningQuestion) (*candidatePolicy, error) {
	c := &candidatePolicy{running: s.Snapshot()}
	files := s.policyFiles()
	c.open = opened("old", files.LeftOut())
	if len(q.Policy) == 0 && s.options.Configuration != nil {
		target, next, changes, err := s.try(Edit{Afresh: true})
		if err != nil {
			return nil, err
		}
		if changes.Any() {
			c.attachments = changes
		}
		c.next, files, c.policy, c.target = next, target.Files, target.Policy, target
	} else {
		files = files.again(q.Policy)
		set, err := files.Load()
		if err != nil {
			return nil, err
		}
		c.policy = set
		if c.next, err = s.other(set); err != nil {
			return nil, err
		}
		if c.running, err = s.Asked(); err != nil {
			return nil, err
		}
	}
	c.files = files
	c.openRules = files.openRules
	c.open = append(c.open, opened("new", files.LeftOut())...)
	return c, nil
}

func (s *Service) cuts(candidate *topology.Snapshot, limit int) *LiveFlows {
	e := s.options.Engine
	if limit == 0 {
		limit = DefaultCutLimit
	}
	list := &LiveFlows{List: []CutFlow{}}
	snapshot, keys := e.Snapshot(), e.Registry().Keys()
	list.Live = verdict.Cuts(e.Flows(), e.Room(), snapshot, candidate, func(f *conntrack.FlowInfo, d *verdict.Decision) {
		if list.Cut++; len(list.List) == limit {
			list.Truncated = true
			return
		}
		cut := CutFlow{Flow: DescribeFlow(e, snapshot, keys, f), Reason: ReasonMoved}
		if d.Drop != packet.NotDropped {
			cut.Reason = ask.ReasonOf(d.Drop)
		}
		if v := &d.Verdict; d.Drop == packet.DropRule {
			last := &v.Stages[v.N-1]
			cut.NetworkSecurityGroup, cut.RuleName = last.Stage.Group.Label, last.SecurityRule().QualifiedName()
		}
		list.List = append(list.List, cut)
	})
	return list
}
