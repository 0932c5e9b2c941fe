package inspect

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// maxEarlierRules bounds the rules of all earlier policies that are kept together.
const maxEarlierRules = 50_000

// earlier keeps policies that were in force.
type earlier struct {
	last *topology.Snapshot   // in force as last seen
	kept []*topology.Snapshot // before it, the oldest first
}

// follow keeps what was in force before now, at most so many policies and maxEarlierRules of them.
func (e *earlier) follow(now *topology.Snapshot, most int) {
	if now.Policy == e.last.Policy { // attachments alone are others
		e.last = now
		return
	}
	if e.kept = append(e.kept, e.last); len(e.kept) > most {
		e.kept = e.kept[len(e.kept)-most:]
	}
	e.last = now
	rules := 0
	for i, s := range slices.Backward(e.kept) {
		for _, g := range s.Groups {
			rules += len(g.Inbound.Rules) + len(g.Outbound.Rules)
		}
		if rules > maxEarlierRules {
			e.kept = e.kept[i+1:]
			break
		}
	}
	e.kept = slices.Clone(e.kept) // lets go of the others
}

// CandidateGeneration names the candidate in questions of Compare.
const CandidateGeneration = "candidate"

// Generations are those that Compare knows, the newest first.
func (s *Service) Generations() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []uint64{s.earlier.last.Generation}
	for _, kept := range slices.Backward(s.earlier.kept) {
		list = append(list, kept.Generation)
	}
	return list
}

// Compare says what one generation of the policy allows and denies otherwise than another: numbers of Generations, or
// CandidateGeneration. At most maxChanges are listed.
func (s *Service) Compare(old, new string, maxStates, maxChanges int) (*RunningDiff, error) {
	before, err := s.generation("old", old)
	if err != nil {
		return nil, err
	}
	after, err := s.generation("new", new)
	if err != nil {
		return nil, err
	}
	s.comparing.Lock()
	defer s.comparing.Unlock()
	result := &RunningDiff{DiffResult: ask.Diff(before, after, ask.DiffOptions{MaxStates: maxStates, EndToEnd: true})}
	if n := maxChanges; len(result.Changes) > n {
		result.Changes, result.MoreChanges = result.Changes[:n], len(result.Changes)-n
	}
	return result, nil
}

// generation finds a policy by what a question calls it.
func (s *Service) generation(field, text string) (*topology.Snapshot, error) {
	if text == CandidateGeneration {
		s.loading.Lock()
		defer s.loading.Unlock()
		if s.trial == nil {
			return nil, fmt.Errorf("%s: %w", field, ErrNoCandidate)
		}
		return s.trial.Next(), nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kept := range append([]*topology.Snapshot{s.earlier.last}, s.earlier.kept...) {
		if err == nil && kept.Generation == n {
			return kept, nil
		}
	}
	return nil, fmt.Errorf("%s: %q: allowed are %s and a generation that is kept", field, text, CandidateGeneration)
}
