package inspect

import (
	"cmp"
	"slices"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

const (
	// MaxMapEdges bounds the edges of a map.
	MaxMapEdges = 300
	// mapDenied is how far back denied packets are shown, in whole buckets of the history.
	mapDenied = 10 * time.Second
)

// MapTraffic is the live traffic between the nodes of a Map of the same generation.
type MapTraffic struct {
	Generation uint64 `json:"generation"`
	// Seconds is the time that the rates of allowed traffic are measured over; 0: this is the first reading.
	Seconds float64 `json:"seconds"`
	// DeniedSeconds is that of denied packets; 0: nothing is remembered, and none are shown.
	DeniedSeconds float64   `json:"deniedSeconds"`
	Traffic       Traffic   `json:"traffic"`
	FlowTable     FlowUse   `json:"flowTable"`
	Edges         []MapEdge `json:"edges"`
	// More counts the edges beyond MaxMapEdges.
	More int `json:"more"`
}

// MapEdge is what goes from one node to another, and was allowed, or was dropped.
type MapEdge struct {
	From int `json:"from"` // index into Map.Nodes
	To   int `json:"to"`
	// Via is the load balancer that leads there; -1: none does.
	Via    int    `json:"via"`
	Access string `json:"access"`
	// Rule is the one that the most packets met, the last that allows or the one that denies. It is absent where
	// Reason says why packets were dropped without one, or PlatformService for what service they passed.
	Rule            *FlowRule `json:"rule,omitempty"`
	Reason          string    `json:"reason,omitempty"`
	PlatformService string    `json:"platformService,omitempty"`
	// Others counts further rules and reasons of the edge.
	Others int `json:"others"`
	// Flows are alive; denied packets have none.
	Flows            int     `json:"flows"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
	// Example is one of the flows or packets, as its source sends it.
	Example MapExample `json:"example"`
}

// MapExample is a question about an edge.
type MapExample struct {
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
}

// edgeKey is what makes an edge.
type edgeKey struct {
	from, to, via int
	access        ruleset.Access
}

// cause is what decided about part of an edge.
type cause struct {
	slot uint32
	drop packet.Drop
}

// edge sums up an edge by its causes.
type edge struct {
	MapEdge
	causes map[cause]float64
}

// edges are bounded by the pairs of nodes, which the policy bounds.
type edges struct {
	atlas *atlas
	all   map[edgeKey]*edge
}

func (m *edges) of(k edgeKey, example *packet.Tuple) *edge {
	e := m.all[k]
	if e == nil {
		e = &edge{MapEdge: MapEdge{From: k.from, To: k.to, Via: k.via, Access: k.access.String(), Example: MapExample{
			packet.ProtocolName(example.Proto), example.Src.String(), example.Dst.String(), example.DstPort}}, causes: map[cause]float64{}}
		m.all[k] = e
	}
	return e
}

// MapTraffic reads the live traffic of a map. Its walk over the flow table stops nobody.
func (s *Service) MapTraffic() *MapTraffic {
	e, at := s.options.Engine, s.options.Now()
	snapshot := e.Snapshot()
	b := &s.top
	b.mu.Lock()
	b.touch()
	m := &edges{atlas: b.atlasOf(snapshot), all: map[edgeKey]*edge{}}
	now := readCounts(e)
	b.counters.take(now, at)
	b.flows.begin(at)
	r := &TopReading{Time: at}
	s.walk(r, func(*conntrack.FlowInfo) bool { return true }, func(info *conntrack.FlowInfo, f *figures) { s.allowed(m, snapshot, info, f) })
	t := &MapTraffic{Generation: snapshot.Generation, Seconds: r.Seconds, Traffic: b.counters.show(&now), FlowTable: flowUse(e.Flows()), Edges: []MapEdge{}}
	b.mu.Unlock()
	s.denied(m, t)
	keys := e.Registry().Keys()
	for _, one := range m.all {
		t.Edges = append(t.Edges, one.named(keys))
	}
	slices.SortFunc(t.Edges, heaviest)
	if t.More = max(len(t.Edges)-MaxMapEdges, 0); t.More > 0 {
		t.Edges = t.Edges[:MaxMapEdges]
	}
	return t
}

// heaviest has the edges with the most bytes first.
func heaviest(x, y MapEdge) int {
	return cmp.Or(cmp.Compare(y.BytesPerSecond, x.BytesPerSecond), cmp.Compare(y.PacketsPerSecond, x.PacketsPerSecond), cmp.Compare(y.Flows, x.Flows),
		cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To), cmp.Compare(x.Access, y.Access))
}

// allowed adds a live flow. Of a flow with a record at each end, the sender's counts.
func (s *Service) allowed(m *edges, snapshot *topology.Snapshot, info *conntrack.FlowInfo, f *figures) {
	e := s.options.Engine
	from, whole := e.Room().Attachment(info.Key.Zone)
	if !whole || from >= len(snapshot.Attachments) {
		return
	}
	src := e.Room().End(snapshot, info.Key.Zone, info.Key.Src)
	if src == nil {
		return
	}
	var dst *topology.Endpoint
	if to, whole := e.Room().Attachment(info.ReplyKey.Zone); whole && to < len(snapshot.Attachments) {
		dst = e.Room().End(snapshot, info.ReplyKey.Zone, info.Receiver)
	} else if !whole {
		dst, _ = snapshot.Route(src, info.Key.Src, info.Key.Dst)
	}
	k := edgeKey{m.atlas.node(src), m.atlas.node(dst), m.atlas.through(info.Key.Dst), ruleset.Allow}
	if k.from < 0 || k.to < 0 {
		return
	}
	one := m.of(k, &info.Key.Tuple)
	one.Flows++
	one.PacketsPerSecond += f.packetsPerSecond
	one.BytesPerSecond += f.bytesPerSecond
	last := cause{slot: conntrack.NoSlot}
	for slots := info.Slots; slots.More(); slots = slots.Rest() {
		last.slot = slots.First()
	}
	one.causes[last] += 1e-3 + f.packetsPerSecond // idle flows count a little
}

// denied adds what was dropped of late between two ends that are known.
func (s *Service) denied(m *edges, t *MapTraffic) {
	if s.options.History == nil {
		return
	}
	s.remembering.Lock()
	defer s.remembering.Unlock()
	span := s.options.History.Since(s.options.Now().Add(-mapDenied))
	t.DeniedSeconds = rounded(max(span.To.Sub(span.From), time.Second).Seconds())
	snapshot := m.atlas.snapshot
	known := &merge{snapshot: snapshot, registry: s.options.Engine.Registry()}
	node := func(index int32, generation uint64, address packet.Addr) int {
		if index = known.attached(index, generation); index < 0 || int(index) >= len(snapshot.Attachments) {
			return -1
		}
		return m.atlas.node(snapshot.Admit(snapshot.Attachments[index], address))
	}
	span.Denied(func(p *history.Pair) {
		k := edgeKey{node(p.From, p.Generation, p.Source), node(p.To, p.Generation, p.Destination), m.atlas.through(p.Destination), ruleset.Deny}
		if k.to < 0 && k.via >= 0 { // no backend was chosen
			k.to, k.via = k.via, -1
		}
		if k.from < 0 || k.to < 0 {
			return
		}
		one := m.of(k, &packet.Tuple{Src: p.Source, Dst: p.Destination, Proto: p.Protocol, DstPort: p.Port})
		one.PacketsPerSecond += float64(p.Packets[0]) / t.DeniedSeconds
		one.BytesPerSecond += float64(p.Bytes[0]) / t.DeniedSeconds
		why := cause{p.Slot, p.Drop}
		if !known.known(why.slot, p.Generation) {
			why.slot = conntrack.NoSlot
		}
		one.causes[why] += float64(p.Count)
	})
}

// named is the edge with the name of its chief cause.
func (e *edge) named(keys []topology.RuleKey) MapEdge {
	var chief cause
	most := -1.0
	for c, weight := range e.causes {
		if weight > most || weight == most && (c.slot < chief.slot || c.slot == chief.slot && c.drop < chief.drop) {
			chief, most = c, weight
		}
	}
	shown := e.MapEdge
	shown.Others, shown.PacketsPerSecond, shown.BytesPerSecond = len(e.causes)-1, rounded(e.PacketsPerSecond), rounded(e.BytesPerSecond)
	if chief.drop != packet.NotDropped && chief.drop != packet.DropRule {
		shown.Reason = chief.drop.String()
	}
	service := topology.ServiceOfSlot(chief.slot)
	switch {
	case chief.slot == conntrack.NoSlot:
	case service != topology.NoService:
		shown.PlatformService = service.String()
	case int64(chief.slot) < int64(len(keys)) && keys[chief.slot] != (topology.RuleKey{}):
		k := &keys[chief.slot]
		shown.Rule = &FlowRule{k.NetworkSecurityGroup, k.Direction.String(), k.Rule}
	}
	return shown
}
