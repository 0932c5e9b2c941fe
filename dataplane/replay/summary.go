package replay

import (
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Summary is what became of all packets. Packets and bytes that the engine counts are
// those of the metrics: IP packets, wire segments of superpackets.
type Summary struct {
	Files []File `json:"files"`
	// Complete is false when a file could not be read to its end, or the replay was interrupted.
	Complete bool   `json:"complete"`
	Packets  uint64 `json:"packets"` // of the captures
	Bytes    uint64 `json:"bytes"`   // of the captures, with what was not captured of each packet
	// First and Last are the earliest and the latest time; absent without any.
	First *time.Time `json:"first,omitempty"`
	Last  *time.Time `json:"last,omitempty"`
	// OutOfOrder counts packets from before the one before them, which were judged at that one's time.
	OutOfOrder uint64 `json:"outOfOrder"`
	// Skipped are packets that were not judged, by reason; reasons without one are absent.
	Skipped map[string]uint64 `json:"skipped"`
	Judged  Count             `json:"judged"`
	Allowed Count             `json:"allowed"`
	Denied  Count             `json:"denied"` // by rules
	// Dropped are the packets not carried, by reason; rule_deny are those of Denied, a superpacket counted once.
	Dropped map[string]uint64 `json:"dropped"`
	Flows   Flows             `json:"flows"`
	// Rules have decided something; UnusedRules have not, though they stand where they could. Their counters are
	// those of the metrics.
	Rules       []inspect.Rule `json:"rules"`
	UnusedRules []inspect.Rule `json:"unusedRules"`
	// PlatformServices is what passed whatever the rules say, by service.
	PlatformServices map[string]Count `json:"platformServices,omitempty"`
	// Comparison is what Compare has found; absent without.
	Comparison *Comparison `json:"comparison,omitempty"`
	// FlowLogs is what the flow logs among the files hold; absent without any.
	FlowLogs *FlowLogs `json:"flowLogs,omitempty"`
	// Against is what would have been otherwise: under the other policy, or, without one, under this one and not as
	// flow logs have recorded. Absent without either.
	Against *Against `json:"against,omitempty"`
}

// File is one capture or flow log.
type File struct {
	File    string `json:"file"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Records and Rows are those of a flow log.
	Records uint64 `json:"records,omitempty"`
	Rows    uint64 `json:"rows,omitempty"`
	Error   string `json:"error,omitempty"` // why it was not read to its end
}

// Count counts packets and the bytes of them.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Flows are those that began.
type Flows struct {
	Created uint64            `json:"created"`
	Live    int64             `json:"live"`  // at the end
	Ended   map[string]uint64 `json:"ended"` // by cause
	// Top are those with most bytes, as each was at its last packet.
	Top []inspect.Flow `json:"top"`
}

// Comparison counts the packets that had a verdict in the capture.
type Comparison struct {
	Compared    uint64 `json:"compared"`
	Differences uint64 `json:"differences"`
}

// tally is what only the replay itself counts.
type tally struct {
	files               []File
	first               time.Time
	back                uint64
	skipped             [numSkips]uint64
	compared, different uint64
}

// Summary sums up; fragments that still wait for their datagram's first one are dropped. Call it last.
func (r *Replay) Summary() (*Summary, error) {
	s := &Summary{Files: r.seen.files, Complete: true, OutOfOrder: r.seen.back, Skipped: map[string]uint64{}, Dropped: map[string]uint64{},
		Flows: Flows{Ended: map[string]uint64{}, Top: []inspect.Flow{}}, Rules: []inspect.Rule{}, UnusedRules: []inspect.Rule{}}
	if s.Files == nil {
		s.Files = []File{}
	}
	for i := range s.Files {
		f := &s.Files[i]
		s.Packets, s.Bytes, s.Complete = s.Packets+f.Packets, s.Bytes+f.Bytes, s.Complete && f.Error == ""
	}
	if first, last := r.seen.first, r.last; !first.IsZero() {
		s.First, s.Last = &first, &last
	}
	for reason, n := range r.seen.skipped {
		if n > 0 {
			s.Skipped[Skip(reason).String()] = n
		}
	}
	if r.o.Compare {
		s.Comparison = &Comparison{r.seen.compared, r.seen.different}
	}
	s.FlowLogs = r.logs.result()
	if r.o.Against != nil || s.FlowLogs != nil {
		s.Against = r.changes.result()
		s.Against.Recorded = r.o.Against == nil
	}
	if r.carrier == nil {
		return s, nil
	}
	r.carrier.Finish()
	r.sumTraffic(s)
	r.sumFlows(&s.Flows)
	return s, r.sumRules(s)
}

func (r *Replay) sumTraffic(s *Summary) {
	e := r.carrier.Engine()
	for _, c := range e.AttachmentCounts() {
		s.Judged.add(c.ReceivePackets, c.ReceiveBytes)
		s.Allowed.add(c.TransmitPackets, c.TransmitBytes)
	}
	for reason, n := range e.Drops() {
		if n > 0 {
			s.Dropped[packet.Drop(reason).String()] = n
		}
	}
	for service, c := range e.Counters().Services() {
		if c.Packets > 0 {
			if s.PlatformServices == nil {
				s.PlatformServices = map[string]Count{}
			}
			s.PlatformServices[topology.Service(service).String()] = Count(c)
		}
	}
}

func (c *Count) add(packets, bytes uint64) { c.Packets, c.Bytes = c.Packets+packets, c.Bytes+bytes }

func (r *Replay) sumFlows(f *Flows) {
	e := r.carrier.Engine()
	stats := e.Flows().Stats()
	f.Created, f.Live = stats.Created, stats.Flows
	for cause, n := range stats.Ended {
		if n > 0 {
			f.Ended[conntrack.EndCause(cause).String()] = n
		}
	}
	for _, one := range r.top.sorted() {
		f.Top = append(f.Top, inspect.DescribeFlow(e, e.Snapshot(), r.keys, &one.info))
	}
}

func (r *Replay) sumRules(s *Summary) error {
	e := r.carrier.Engine()
	list, err := inspect.Rules(e.Snapshot(), e.Counters().Rules(len(r.keys)), inspect.RuleFilter{})
	if err != nil {
		return err
	}
	standing := r.standing()
	for _, rule := range list.Rules {
		c := rule.Counters
		switch {
		case c.Packets > 0 || c.Hits > 0:
			s.Rules = append(s.Rules, rule)
			if rule.Access == Deny {
				s.Denied.add(c.Packets, c.Bytes)
			}
		case standing == nil || standing[rule.NetworkSecurityGroup]:
			s.UnusedRules = append(s.UnusedRules, rule)
		}
	}
	return nil
}

// standing are the labels of the NSGs and rule collections that the chosen NICs' packets can meet; nil:
// all.
func (r *Replay) standing() map[string]bool {
	if r.owners == nil {
		return nil
	}
	labels := map[string]bool{}
	snapshot := r.carrier.Engine().Snapshot()
	for _, nic := range snapshot.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			e := snapshot.Endpoint(nic, nic.IPConfigurations[i].Address)
			if e == nil || e.Attachment < 0 {
				continue
			}
			for _, stages := range [][]topology.Stage{e.AdminInbound, e.AdminOutbound, e.Inbound, e.Outbound} {
				for j := range stages {
					labels[stages[j].Group.Label] = true
				}
			}
		}
	}
	return labels
}
