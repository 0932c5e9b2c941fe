package probe

import "errors"

// state is what is known of one backend. The zero value is one that has not been asked: down, as
// Azure has it.
type state struct {
	asked bool
	up    bool
	row   int // outcomes in a row that speak against up
}

// refusal is a failure that says plainly that the backend takes nothing: another status than 200,
// or a reset. One is enough, whatever the threshold.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// book takes the outcome of one probe, nil for an answer, and reports whether the backend's state
// is another now, or known at last. The first outcome decides alone; later ones need threshold in a
// row, but for a refusal.
func (s *state) book(err error, threshold int) (changed bool) {
	answered := err == nil
	if s.asked && answered == s.up {
		s.row = 0
		return false
	}
	s.row++
	var refused refusal
	if s.asked && s.row < threshold && !errors.As(err, &refused) {
		return false
	}
	s.asked, s.up, s.row = true, answered, 0
	return true
}
