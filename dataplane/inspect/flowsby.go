package inspect

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// MaxFlowsBy bounds an answer of FlowsBy.
const MaxFlowsBy = 10_000

// RatedFlows are live flows with their rates, those with the most bytes a second first.
type RatedFlows struct {
	// Seconds is the time that the rates are measured over; 0: this is the first reading, and all rates are 0.
	Seconds float64   `json:"seconds"`
	Flows   []TopFlow `json:"flows"`
	// Matching counts the flows that the filter takes, listed or not.
	Matching int `json:"matching"`
}

// FlowsBy lists the live flows that a filter takes, see watch.Filter, at most so many, 1 to MaxFlowsBy. The error is about
// the filter.
func (s *Service) FlowsBy(filter string, limit int) (*RatedFlows, error) {
	parsed, err := watch.Parse(filter)
	if err != nil {
		return nil, err
	}
	program, err := parsed.Compile(s.options.Engine.WatchNames())
	if err != nil {
		return nil, err
	}
	q := &TopQuestion{View: TopFlows, Order: TopOrders(TopFlows)[0], Limit: min(max(limit, 1), MaxFlowsBy)}
	b := &s.top
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touch()
	r := &TopReading{Time: s.options.Now()}
	s.topFlows(r, q, func(f *conntrack.FlowInfo) bool { return program.Match(s.eventOfFlow(f)) })
	return &RatedFlows{r.Seconds, r.Flows, r.Matching}, nil
}

// eventOfFlow is a packet of a live flow as filters see it.
func (s *Service) eventOfFlow(f *conntrack.FlowInfo) *watch.Event {
	e := &watch.Event{From: -1, To: -1, Standing: watch.InFlow, Translated: f.Marks&conntrack.Translated != 0, Arrives: f.ReplyKey.Reverse()}
	e.Packet.Tuple = f.Key.Tuple
	if at, whole := s.options.Engine.Room().Attachment(f.Key.Zone); whole {
		e.From = int32(at)
	}
	if at, whole := s.options.Engine.Room().Attachment(f.ReplyKey.Zone); whole {
		e.To = int32(at)
	}
	e.Note(f.Slots)
	return e
}
