package inspect

import (
	"cmp"
	"slices"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// EndedQuestion asks for flows that have ended of late.
type EndedQuestion struct {
	// FlowFilter chooses them. Its Limit bounds flows and pairs.
	FlowFilter
	// Since is how long ago it begins; 0: DefaultSince.
	Since time.Duration
}

// EndedList says which flows have ended.
type EndedList struct {
	Window
	// Flows are the newest ones that the filter takes, the last one first.
	Flows []EndedFlow `json:"flows"`
	// Truncated is set when more flows match than the limit let through.
	Truncated bool `json:"truncated"`
	// Missing says that older flows of this time are not remembered one by one any more. Pairs has them.
	Missing bool `json:"missing"`
	// Pairs are the sums of all flows that the filter takes, by rule and pair, the one with the most flows first.
	Pairs []EndedPair `json:"pairs"`
	// MorePairs counts the pairs beyond the limit.
	MorePairs int `json:"morePairs"`
	// NotSeen counts flows that ended too quickly to be remembered.
	NotSeen uint64 `json:"notSeen"`
}

// EndedFlow is a flow that has ended, as it was then.
type EndedFlow struct {
	Flow
	Began time.Time `json:"began"`
	// Ended is when that was noticed, a few seconds behind an idle flow's timeout.
	Ended time.Time `json:"ended"`
}

// EndedPair are the flows between two ends that one rule was the last to allow.
type EndedPair struct {
	RememberedPair
	// PlatformService is the service of the platform for which they passed; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	Flows           uint64 `json:"flows"`
	PacketsSent     uint64 `json:"packetsSent"` // by the source
	BytesSent       uint64 `json:"bytesSent"`
	PacketsReceived uint64 `json:"packetsReceived"` // by the source
	BytesReceived   uint64 `json:"bytesReceived"`
}

// Check says what no daemon could make of the question. The error begins with the field.
func (q *EndedQuestion) Check() error { return cmp.Or(q.FlowFilter.Check(), checkSince(q.Since)) }

// Ended says which flows have ended of late. The error is ErrNoHistory or about the question.
func (s *Service) Ended(q EndedQuestion) (*EndedList, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	match, err := q.compile(s.Snapshot())
	if err != nil {
		return nil, err
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	span, err := s.span(q.Since)
	if err != nil {
		return nil, err
	}
	limit := cmp.Or(q.Limit, DefaultFlowLimit)
	list := &EndedList{Window: Window{span.From, span.To}, Flows: []EndedFlow{}, Pairs: []EndedPair{}, NotSeen: span.Lost}
	var held []*history.Ended
	from, oldest := span.From.UnixNano(), int64(0)
	_, missed := s.options.History.EndedSince(0, func(e *history.Ended) {
		if oldest == 0 {
			oldest = e.At
		}
		if e.At >= from && match.matches(&e.Flow) {
			held = append(held, e)
		}
	})
	list.Missing = missed > 0 && oldest >= from
	slices.Reverse(held)
	if list.Truncated = len(held) > limit; list.Truncated {
		held = held[:limit]
	}
	for _, e := range held {
		list.Flows = append(list.Flows, s.describeEnded(e))
	}
	m := s.merged(span.Ended, func(k *history.Key) bool { return match.matches(pairFlow(k)) })
	pairs, more := m.top(limit)
	list.MorePairs = more
	for i := range pairs {
		list.Pairs = append(list.Pairs, m.ended(&pairs[i]))
	}
	return list, nil
}

// pairFlow is a pair as FlowFilter sees it.
func pairFlow(k *history.Key) *conntrack.FlowInfo {
	f := &conntrack.FlowInfo{Receiver: k.Destination}
	f.Key.Tuple = packet.Tuple{Src: k.Source, Dst: k.Destination, Proto: k.Protocol, DstPort: k.Port}
	f.ReplyKey.Tuple = f.Key.Tuple.Reverse()
	f.Key.Zone, f.ReplyKey.Zone = uint16(k.From), uint16(k.To)
	return f
}

// describeEnded describes a flow, without rules that the daemon has forgotten.
func (s *Service) describeEnded(e *history.Ended) EndedFlow {
	engine := s.options.Engine
	var known conntrack.Slots
	i := 0
	for slots := e.Flow.Slots; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if _, ok := engine.Registry().At(slot, e.Generation); ok || topology.ServiceOfSlot(slot) != topology.NoService {
			known.Set(i, slot)
			i++
		}
	}
	f := e.Flow
	f.Slots = known
	snapshot, at := engine.Snapshot(), time.Unix(0, e.At).UTC()
	shown := DescribeFlow(engine, snapshot, engine.Registry().Keys(), &f)
	shown.From, shown.To = snapshot.NameSince(int(e.From), e.Generation), snapshot.NameSince(int(e.To), e.Generation)
	return EndedFlow{Flow: shown, Began: at.Add(-f.Age), Ended: at}
}

func (m *merge) ended(p *history.Pair) EndedPair {
	shown := EndedPair{RememberedPair: m.remembered(p), Flows: p.Count, PacketsSent: p.Packets[0], BytesSent: p.Bytes[0], PacketsReceived: p.Packets[1], BytesReceived: p.Bytes[1]}
	if service := topology.ServiceOfSlot(p.Slot); service != topology.NoService && p.Slot != conntrack.NoSlot {
		shown.PlatformService = service.String()
	}
	return shown
}
