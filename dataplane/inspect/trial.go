package inspect

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/candidate"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

var (
	// ErrCandidate refuses a second candidate.
	ErrCandidate = errors.New("a candidate is judged already: promote it or abort it first")
	// ErrNoCandidate says that there is none.
	ErrNoCandidate = errors.New("no candidate is judged: nsgctl candidate start begins")
	// ErrClustered refuses to promote a candidate on one host of many.
	ErrClustered = errors.New("this host carries its cluster's policy: nsgctl cluster apply makes another one everybody's")
	// ErrOutdated refuses to promote a candidate that was judged beside another policy.
	ErrOutdated = errors.New("another policy has come into force since the candidate began: abort it and start again")
)

// trial is a candidate that is judged.
type trial struct {
	*candidate.Trial
	candidatePolicy *candidatePolicy
	paths           []string // absolute; none: the daemon's own configuration
	cause           string
	began           time.Time
	live            *LiveFlows // that it would have cut at its begin
}

// CandidateQuestion says which policy is judged.
type CandidateQuestion struct {
	// Policy are absolute paths of files and folders, which the daemon reads; none: its own configuration and policy as
	// they are now.
	Policy []string `json:"policy,omitempty"`
}

// Check says what no daemon could make of the question. The error begins with the field.
func (q *CandidateQuestion) Check() error { return (&RunningQuestion{Policy: q.Policy}).Check() }

// Candidate says what a candidate would do otherwise than the policy in force. Nothing of it is enforced.
type Candidate struct {
	// Policy are the files and folders; empty: the daemon's own configuration.
	Policy []string `json:"policy"`
	// Cause says who began: see Reloads.LastCause.
	Cause string    `json:"cause"`
	Began time.Time `json:"began"`
	// Generation is that of the policy in force beside which it is judged.
	Generation uint64 `json:"generation"`
	// Outdated says that another policy has come into force since. Nothing is judged any more, and it can't be promoted.
	Outdated bool `json:"outdated"`
	// Judged counts the packets that were judged: they began a flow, or were dropped for what a policy says.
	Judged uint64 `json:"judged"`
	// NotSeen counts those that came too quickly to be judged.
	NotSeen uint64 `json:"notSeen"`
	// WouldDeny are flows that began and that it denies, WouldAllow dropped packets that it allows.
	WouldDeny  CandidateSums `json:"wouldDeny"`
	WouldAllow CandidateSums `json:"wouldAllow"`
	// LiveFlows are those that it would have cut when it began, each judged once.
	LiveFlows *LiveFlows `json:"liveFlows"`
	// Attachments are those that would come, go or change; absent when none would.
	Attachments *AttachmentChanges `json:"attachments,omitempty"`
}

// CandidateSums are packets about which a candidate decides otherwise.
type CandidateSums struct {
	Packets uint64          `json:"packets"`
	Rules   []CandidateRule `json:"rules"`
	// Others counts packets of rules beyond candidate.MaxRules, which are not listed.
	Others uint64 `json:"others"`
}

// CandidateRule is a rule of the candidate, or another reason, that decides otherwise.
type CandidateRule struct {
	// Reason is rule, another drop's name as verify has it, or allow with the last rule that allows.
	Reason               string `json:"reason"`
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	RuleName             string `json:"ruleName,omitempty"`
	Packets              uint64 `json:"packets"`
	// Examples are the first packets of different ends, at most candidate.MaxExamples, with what the policy in force has
	// decided about them.
	Examples []*TracedPacket `json:"examples"`
}

// maxTrialCuts is how many live flows a candidate's status lists.
const maxTrialCuts = 20

// StartCandidate begins to judge a policy beside the one in force. The error is ErrCandidate, a *PolicyError, or another
// reason why it can't be the next policy.
func (s *Service) StartCandidate(q *CandidateQuestion, cause string) (*Candidate, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.trial != nil {
		return nil, ErrCandidate
	}
	c, err := s.readCandidate(&RunningQuestion{Policy: q.Policy})
	if err != nil {
		return nil, err
	}
	judged, err := candidate.Begin(s.options.Engine, c.next)
	if err != nil {
		return nil, err
	}
	s.trial = &trial{Trial: judged, candidatePolicy: c, paths: append([]string{}, q.Policy...), cause: cause, began: s.options.Now(), live: s.cuts(c.next, maxTrialCuts)}
	s.options.Log.Info("candidate begins", "cause", cause, "policy", q.Policy, "beside", judged.Base().Generation, "liveFlows", s.trial.live.Live, "cut", s.trial.live.Cut)
	return s.describeTrial(), nil
}

// Candidate says how the candidate does. The error is ErrNoCandidate.
func (s *Service) Candidate() (*Candidate, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.trial == nil {
		return nil, ErrNoCandidate
	}
	return s.describeTrial(), nil
}

// CandidateFlows lists the live flows that the candidate would cut now. The error is ErrNoCandidate, or ErrOutdated.
func (s *Service) CandidateFlows(limit int) (*LiveFlows, error) {
	if err := (&RunningQuestion{Limit: limit}).Check(); err != nil {
		return nil, err
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	switch t := s.trial; {
	case t == nil:
		return nil, ErrNoCandidate
	case t.Outdated():
		return nil, ErrOutdated
	}
	return s.cuts(s.trial.Next(), limit), nil
}

// AbortCandidate forgets the candidate and returns what was found out. The error is ErrNoCandidate.
func (s *Service) AbortCandidate() (*Candidate, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.trial == nil {
		return nil, ErrNoCandidate
	}
	last := s.describeTrial()
	s.forgetTrial()
	s.options.Log.Info("candidate aborted")
	return last, nil
}

// PromoteCandidate makes the candidate the policy in force, exactly as it was read when it began: a reload in all else. Errors
// are those of Reload, ErrNoCandidate, ErrOutdated and ErrClustered.
func (s *Service) PromoteCandidate(q ReloadRequest) (*Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	switch t := s.trial; {
	case t == nil:
		return nil, ErrNoCandidate
	case t.Outdated():
		return nil, ErrOutdated
	case s.options.Cluster != nil && s.options.Cluster() != nil:
		return nil, ErrClustered
	}
	reloaded, err := s.change(q, func(bool) (*Reloaded, error) { return s.promote(s.trial.candidatePolicy) })
	if err == nil {
		s.forgetTrial()
	}
	return reloaded, err
}

// promote makes a candidate the policy in force. loading is held.
func (s *Service) promote(c *candidatePolicy) (*Reloaded, error) {
	if s.options.Configuration == nil {
		return s.swap(c.files, c.policy)
	}
	target := c.target
	if target == nil {
		target = s.options.Configuration.Running()
		target.Policy, target.Files = c.policy, c.files
	}
	target.Try = false
	return s.reach(target)
}

// forgetTrial ends the trial of a candidate, if there is one. loading is held.
func (s *Service) forgetTrial() {
	if s.trial != nil {
		s.trial.Close()
		s.trial = nil
	}
}

// describeTrial describes the candidate. loading is held.
func (s *Service) describeTrial() *Candidate {
	t := s.trial
	j := t.Judged()
	n := &namer{engine: s.options.Engine}
	return &Candidate{
		Policy: t.paths, Cause: t.cause, Began: t.began, Generation: t.Base().Generation, Outdated: j.Outdated, Judged: j.Packets, NotSeen: j.NotSeen,
		WouldDeny: describeSums(n, &j.Deny), WouldAllow: describeSums(n, &j.Allow), LiveFlows: t.live, Attachments: t.candidatePolicy.attachments,
	}
}

func describeSums(n *namer, s *candidate.Sums) CandidateSums {
	shown := CandidateSums{Packets: s.Count, Rules: []CandidateRule{}, Others: s.Others}
	for i := range s.Rules {
		sum := &s.Rules[i]
		rule := CandidateRule{Reason: "allow", NetworkSecurityGroup: sum.Group, RuleName: sum.Name, Packets: sum.Count, Examples: []*TracedPacket{}}
		if sum.Drop != packet.NotDropped {
			rule.Reason = ask.ReasonOf(sum.Drop)
		}
		for k := range sum.Examples {
			rule.Examples = append(rule.Examples, n.describe(&sum.Examples[k]))
		}
		shown.Rules = append(shown.Rules, rule)
	}
	return shown
}

// ErrCuts refuses a policy that would cut more live flows than may be.
var ErrCuts = errors.New("the policy would cut live flows")

// shownCuts is how many live flows a refusal names.
const shownCuts = 3

// mayCut refuses the next policy if it would cut more live flows than the reload under way may cut. No other reload comes
// between this and the swap. loading is held.
func (s *Service) mayCut(next *topology.Snapshot) error {
	if s.maxCut == nil {
		return nil
	}
	cuts := s.cuts(next, shownCuts)
	if cuts.Cut <= *s.maxCut {
		return nil
	}
	var names []string
	for i := range cuts.List {
		names = append(names, cuts.List[i].String())
	}
	if more := cuts.Cut - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: %d of %d, allowed are %d: %s", ErrCuts, cuts.Cut, cuts.Live, *s.maxCut, strings.Join(names, ", "))
}

// String is the flow and why it would end.
func (f *CutFlow) String() string {
	why := f.Reason
	if f.RuleName != "" {
		why = f.NetworkSecurityGroup + "/" + f.RuleName
	}
	return fmt.Sprintf("%s %s > %s (%s)", f.Protocol, Endpoint(f.Source, f.SourcePort), Endpoint(f.Destination, f.DestinationPort), why)
}
