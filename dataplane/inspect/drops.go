package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// DefaultPairLimit is used when a question's Limit is 0.
	DefaultPairLimit = 50
	// MaxPairLimit bounds how many pairs one answer lists.
	MaxPairLimit = 100_000
	// DefaultSince is used when a question's Since is 0.
	DefaultSince = 10 * time.Minute
)

// ErrNoHistory says that nothing is remembered.
var ErrNoHistory = errors.New("this daemon remembers nothing: history.keep of its configuration is 0s")

// DropQuestion asks what was dropped of late.
type DropQuestion struct {
	// Since is how long ago it begins; 0: DefaultSince.
	Since time.Duration
	// Filter is an expression, see watch.Filter. What is remembered has no source port, and is of no flow.
	Filter string
	// Limit is how many pairs are listed at most, 1 to MaxPairLimit; 0: DefaultPairLimit.
	Limit int
}

// Window is the time that an answer is about, in whole buckets.
type Window struct {
	From time.Time `json:"from"` // later than asked for, where no more is remembered
	To   time.Time `json:"to"`
}

// DropList says what was dropped.
type DropList struct {
	Window
	// Dropped counts all packets that were dropped, by reason, whatever the filter says. A reason without a packet is absent.
	Dropped map[string]uint64 `json:"dropped"`
	// NotSeen counts those among them that came too quickly to be told apart: no pair has them.
	NotSeen uint64 `json:"notSeen"`
	// Pairs are those that the filter takes, the one with the most packets first.
	Pairs []DroppedPair `json:"pairs"`
	// More counts the pairs beyond the limit.
	More int `json:"more"`
}

// RememberedPair is what packets or flows between two ends that are summed up have in common.
type RememberedPair struct {
	// NetworkSecurityGroup, Direction and RuleName are of the rule that denied the packets, or was the last to allow the flows;
	// absent where there was none, or where the daemon has forgotten it.
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	Direction            string `json:"direction,omitempty"`
	RuleName             string `json:"ruleName,omitempty"`
	// Others stands for pairs that had no room of their own. They have no ends.
	Others bool `json:"others,omitempty"`
	// From and To are attachments; empty where that is not known or they are gone.
	From            string    `json:"from"`
	To              string    `json:"to"`
	Protocol        string    `json:"protocol,omitempty"`
	Source          string    `json:"source,omitempty"`
	Destination     string    `json:"destination,omitempty"`
	DestinationPort uint16    `json:"destinationPort,omitempty"`
	Last            time.Time `json:"last"`
}

// DroppedPair is what was dropped between two ends for one reason.
type DroppedPair struct {
	Reason string `json:"reason"` // as nsgd_drops_total has it
	RememberedPair
	Packets  uint64 `json:"packets"` // as they were read; a superpacket is one
	Segments uint64 `json:"segments"`
	Bytes    uint64 `json:"bytes"`
}

// Check says what no daemon could make of the question. The error begins with the field.
func (q *DropQuestion) Check() error {
	filter, err := watch.Parse(q.Filter)
	if err == nil {
		err = filter.Lacks(watch.SourcePorts | watch.Standings)
	}
	return cmp.Or(err, checkSince(q.Since), checkPairLimit(q.Limit))
}

func checkSince(since time.Duration) error {
	if since < 0 || since > history.MaxKeep {
		return fmt.Errorf("since: \"%v\": allowed are 0s to %v", since, history.MaxKeep)
	}
	return nil
}

func checkPairLimit(limit int) error {
	if limit < 0 || limit > MaxPairLimit {
		return fmt.Errorf("limit: %q: allowed are 1 to %d", strconv.Itoa(limit), MaxPairLimit)
	}
	return nil
}

// span is what is remembered since a time ago. One question at a time walks over it.
func (s *Service) span(since time.Duration) (*history.Span, error) {
	if s.options.History == nil {
		return nil, ErrNoHistory
	}
	return s.options.History.Since(s.options.Now().Add(-cmp.Or(since, DefaultSince))), nil
}

// Drops says what was dropped of late. The error is ErrNoHistory or about the question.
func (s *Service) Drops(q DropQuestion) (*DropList, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	filter, err := watch.Parse(q.Filter)
	if err != nil {
		return nil, err
	}
	program, err := filter.Compile(s.options.Engine.WatchNames())
	if err != nil {
		return nil, err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	span, err := s.span(q.Since)
	if err != nil {
		return nil, err
	}
	list := &DropList{Window: Window{span.From, span.To}, Dropped: map[string]uint64{}, NotSeen: span.Unseen, Pairs: []DroppedPair{}}
	for reason, n := range span.Drops {
		if n > 0 {
			list.Dropped[packet.Drop(reason).String()] = n
		}
	}
	m := s.merged(span.Denied, func(k *history.Key) bool { return program.Match(eventOf(k)) })
	top, more := m.top(cmp.Or(q.Limit, DefaultPairLimit))
	list.More = more
	for i := range top {
		list.Pairs = append(list.Pairs, m.dropped(&top[i]))
	}
	return list, nil
}

// eventOf is a dropped packet as filters see it.
func eventOf(k *history.Key) *watch.Event {
	e := &watch.Event{From: k.From, To: k.To, Drop: k.Drop}
	e.Packet.Src, e.Packet.Dst, e.Packet.Proto, e.Packet.DstPort = k.Source, k.Destination, k.Protocol, k.Port
	if k.Slot != conntrack.NoSlot {
		e.Rules[0], e.N = k.Slot, 1
	}
	return e
}

func (m *merge) dropped(p *history.Pair) DroppedPair {
	shown := DroppedPair{Reason: p.Drop.String(), RememberedPair: m.remembered(p), Packets: p.Count, Segments: p.Packets[0], Bytes: p.Bytes[0]}
	if p.Drop == packet.NotDropped { // others of others
		shown.Reason = ""
	}
	return shown
}

func (m *merge) remembered(p *history.Pair) RememberedPair {
	shown := RememberedPair{From: m.attachment(p.From), To: m.attachment(p.To), Others: p.From == history.Others, Last: time.Unix(0, p.Last).UTC()}
	if k, ok := m.rule(p.Slot); ok {
		shown.NetworkSecurityGroup, shown.Direction, shown.RuleName = k.NetworkSecurityGroup, k.Direction.String(), k.Rule
	}
	if p.Destination != (packet.Addr{}) {
		shown.Protocol, shown.Source, shown.Destination, shown.DestinationPort = packet.ProtocolName(p.Protocol), p.Source.String(), p.Destination.String(), p.Port
	}
	return shown
}

// order has the pair with the most packets or flows first, and is the same for every answer.
func order(a, b history.Pair) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Last, a.Last), a.Source.Netip().Compare(b.Source.Netip()),
		a.Destination.Netip().Compare(b.Destination.Netip()), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Slot, b.Slot))
}

// top are the first pairs by order, and how many there are beyond.
func (m *merge) top(limit int) (pairs []history.Pair, more int) {
	for k, sums := range m.pairs {
		pairs = append(pairs, history.Pair{Key: k, Sums: *sums})
	}
	slices.SortFunc(pairs, order)
	if more = max(len(pairs)-limit, 0); more > 0 {
		pairs = pairs[:limit]
	}
	return pairs, more
}
