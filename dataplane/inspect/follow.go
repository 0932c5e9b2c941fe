package inspect

import (
	"context"
	"errors"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// FlowChange is one line of flows that are followed: a flow that began or ended, or a summary.
type FlowChange struct {
	Began *BegunFlow `json:"began,omitempty"`
	Ended *EndedFlow `json:"ended,omitempty"`
	// Summary is the first line, once flows are followed, and the last one. It also comes between flows when some are
	// lost, once a second at most. Its Packets are beginnings, Lost and Skipped are beginnings and ends that nobody saw.
	Summary *WatchSummary `json:"summary,omitempty"`
}

// BegunFlow is a flow as its first packet began it.
type BegunFlow struct {
	Time time.Time `json:"time"`
	// FlowTuple is what the source sends. The source port is the identifier for ICMP.
	Protocol string `json:"protocol"`
	FlowTuple
	// Translated is the flow as its destination sees it; absent when nothing is translated.
	Translated *FlowTuple `json:"translated,omitempty"`
	From       string     `json:"from"`
	To         string     `json:"to"`
	// Rules allowed the flow, in the order of evaluation.
	Rules []FlowRule `json:"rules"`
	// PlatformService is the service of the platform for which the flow passed; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	Generation      uint64 `json:"generation"`
}

// endedEvery is how often a stream looks for flows that have ended.
const endedEvery = 200 * time.Millisecond

// Follow begins a stream of flows that begin and end. The filter's Limit is of no account. The error is ErrNoHistory,
// watch.ErrWatchers when there are too many watchers, or about the filter.
func (s *Service) Follow(filter FlowFilter) (*Stream, error) {
	if s.options.History == nil {
		return nil, ErrNoHistory
	}
	match, err := filter.compile(s.Snapshot())
	if err != nil {
		return nil, err
	}
	subscription, err := s.options.Engine.Watch(watch.Options{DecidedOnly: true, Filter: begins})
	if err != nil {
		return nil, err
	}
	return &Stream{service: s, subscription: subscription, namer: &namer{engine: s.options.Engine}, match: match, cursor: s.options.History.Cursor()}, nil
}

// begins takes packets that begin a flow.
var begins = func() *watch.Filter {
	f, err := watch.Parse("flow " + watch.Begins.String())
	if err != nil {
		panic(err)
	}
	return f
}()

// Follow yields flows that begin and end until ctx ends. It calls flush before it waits for more.
func (s *Stream) Follow(ctx context.Context, yield func(*FlowChange) error, flush func() error) error {
	tell := func(sum WatchSummary) error { return yield(&FlowChange{Summary: &sum}) }
	if err := errors.Join(tell(s.told), flush()); err != nil {
		return err
	}
	events := make([]watch.Event, streamEvents)
	for {
		soon, cancel := context.WithTimeout(ctx, endedEvery)
		n, err := s.subscription.Read(soon, events)
		cancel()
		closed := err != nil && !errors.Is(err, context.DeadlineExceeded)
		if err := errors.Join(s.begun(events[:n], yield), s.ended(yield)); err != nil {
			return err
		}
		if ctx.Err() != nil || closed {
			break
		}
		if now := s.followed(); (now.Lost != s.told.Lost) && time.Since(s.toldAt) >= summaryEvery {
			s.told, s.toldAt = now, time.Now()
			if err := tell(now); err != nil {
				return err
			}
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return errors.Join(tell(s.followed()), flush())
}

func (s *Stream) followed() WatchSummary {
	sum := s.Summary()
	sum.Lost += s.missed
	return sum
}

func (s *Stream) begun(events []watch.Event, yield func(*FlowChange) error) error {
	for i := range events {
		e := &events[i]
		s.packets++
		if !s.match.matches(beginning(e)) {
			continue
		}
		if err := yield(&FlowChange{Began: s.namer.begun(e)}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stream) ended(yield func(*FlowChange) error) (err error) {
	var missed uint64
	s.cursor, missed = s.service.options.History.EndedSince(s.cursor, func(e *history.Ended) {
		if err != nil || !s.match.matches(&e.Flow) {
			return
		}
		flow := s.service.describeEnded(e)
		err = yield(&FlowChange{Ended: &flow})
	})
	s.missed += missed
	return err
}

// beginning is an event as FlowFilter sees it.
func beginning(e *watch.Event) *conntrack.FlowInfo {
	arrives := e.Packet.Tuple
	if e.Translated {
		arrives = e.Arrives
	}
	f := &conntrack.FlowInfo{Receiver: arrives.Dst}
	f.Key.Tuple, f.ReplyKey.Tuple = e.Packet.Tuple, arrives.Reverse()
	f.Key.Zone, f.ReplyKey.Zone = uint16(e.From), uint16(e.To)
	return f
}

func (n *namer) begun(e *watch.Event) *BegunFlow {
	f := &BegunFlow{Time: time.Unix(0, e.Time).UTC(), Protocol: packet.ProtocolName(e.Packet.Proto), FlowTuple: flowTuple(&e.Packet.Tuple),
		From: n.attachment(e.From, e), To: n.attachment(e.To, e), Rules: []FlowRule{}, Generation: e.Generation}
	if e.Translated {
		arrives := flowTuple(&e.Arrives)
		f.Translated = &arrives
	}
	for _, slot := range e.Rules[:e.N] {
		if service := topology.ServiceOfSlot(slot); service != topology.NoService {
			f.PlatformService = service.String()
		} else if k, ok := n.engine.Registry().At(slot, e.Generation); ok {
			f.Rules = append(f.Rules, FlowRule{k.NetworkSecurityGroup, k.Direction.String(), k.Rule})
		}
	}
	return f
}
