package inspect

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
)

// lintStates bounds the work for each list of rules: somebody looks at a running daemon.
const lintStates = 100_000

// Linted is what there is to say about the policy in force.
type Linted struct {
	Generation uint64 `json:"generation"`
	*ask.LintResult
}

// Lint judges the policy in force, once for each that it is asked about.
func (s *Service) Lint() *Linted {
	s.linting.Lock()
	defer s.linting.Unlock()
	if snapshot := s.Snapshot(); s.linted == nil || s.linted.Generation != snapshot.Generation {
		result := ask.Lint(snapshot, ask.LintOptions{MaxStates: lintStates, Today: s.options.Now().Format(time.DateOnly)})
		s.linted = &Linted{Generation: snapshot.Generation, LintResult: result}
	}
	return s.linted
}
