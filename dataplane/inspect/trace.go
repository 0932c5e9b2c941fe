package inspect

import (
	"context"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Trace is one line of a trace: a packet or a summary.
type Trace struct {
	Packet *TracedPacket `json:"packet,omitempty"`
	// Summary is the first line, once packets are watched, and the last one. It also comes
	// between packets when more are lost or skipped, once a second at most.
	Summary *WatchSummary `json:"summary,omitempty"`
}

// TracedPacket is what became of a packet.
type TracedPacket struct {
	Time time.Time `json:"time"` // when it was read
	// From is the attachment that the packet came from. To is the one that it went to, or
	// would have gone to. Each is empty where it is not known.
	From string `json:"from"`
	To   string `json:"to"`
	// Protocol to DestinationPort are the packet's as it came; those of a malformed one are
	// empty. A protocol without ports has 0. The identifier of an ICMP echo is SourcePort in a
	// request and DestinationPort in a reply.
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
	// TCPFlags are letters such as SA for SYN and ACK; TCP only.
	TCPFlags string `json:"tcpFlags,omitempty"`
	ICMPType *uint8 `json:"icmpType,omitempty"`
	ICMPCode *uint8 `json:"icmpCode,omitempty"`
	// FragmentOffset is the place of a fragment's bytes in its datagram; absent for others.
	FragmentOffset *uint16 `json:"fragmentOffset,omitempty"`
	Length         uint32  `json:"length"`   // in bytes, from the IP header on
	Segments       uint32  `json:"segments"` // packets on a wire that it stands for
	// Arrives is what the receiver sees, or would have seen of a denied packet. It is absent
	// when nothing is translated.
	Arrives *FlowTuple `json:"arrives,omitempty"`
	// Access is Allow for a packet that was carried. It is Deny for one that was dropped, and
	// Reason then says why, as nsgd_drops_total does. A TCP segment that was carried though it does not
	// fit its connection's windows has the Reason out_of_window: it changed nothing there.
	Access string `json:"access"`
	Reason string `json:"reason,omitempty"`
	// Flow is new for a packet that began a flow, or live, related to one, or none. Direction
	// is original or reply, when Flow is live or related.
	Flow      string `json:"flow"`
	Direction string `json:"direction,omitempty"`
	// Stages are the rules that were asked, in this order, the denying one last. In a live flow
	// they are the rules that allowed it. A rule that the policy lacks by now has priority 0.
	Stages []azure.VerificationStage `json:"stages"`
	// PlatformService is the service of the platform for which it passed; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	// Generation is that of the policy that decided.
	Generation uint64 `json:"generation"`
}

// Trace yields what becomes of packets until the stream's count, or until ctx ends. It calls
// flush before it waits for more.
func (s *Stream) Trace(ctx context.Context, yield func(*Trace) error, flush func() error) error {
	return s.run(ctx, sink{
		packet: func(e *watch.Event, _ []byte) error {
			return yield(&Trace{Packet: s.namer.describe(e)})
		},
		summary: func(sum WatchSummary) error { return yield(&Trace{Summary: &sum}) },
		flush:   flush,
	})
}

func flowTuple(t *packet.Tuple) FlowTuple {
	return FlowTuple{t.Src.String(), t.SrcPort, t.Dst.String(), t.DstPort}
}

// describe puts names to the numbers of an event.
func (n *namer) describe(e *watch.Event) *TracedPacket {
	p := &e.Packet
	t := &TracedPacket{
		Time: time.Unix(0, e.Time).UTC(), From: n.attachment(e.From, e), To: n.attachment(e.To, e),
		Length: e.Length, Segments: p.Segments,
		Access: accessOf(e), Flow: e.Standing.String(), Generation: e.Generation,
	}
	if p.Dst != (packet.Addr{}) {
		at := flowTuple(&p.Tuple)
		t.Protocol = packet.ProtocolName(p.Proto)
		t.Source, t.SourcePort, t.Destination, t.DestinationPort = at.Source, at.SourcePort, at.Destination, at.DestinationPort
	}
	switch {
	case p.Fragment.IsLater():
	case p.Proto == packet.ProtoTCP:
		t.TCPFlags = tcpFlags(p.TCPFlags)
	case p.Proto == packet.ProtoICMP || p.Proto == packet.ProtoICMPv6:
		t.ICMPType, t.ICMPCode = &p.ICMPType, &p.ICMPCode
	}
	if p.Fragment.IsFragment() {
		t.FragmentOffset = &p.Fragment.Start
	}
	if e.Translated {
		arrives := flowTuple(&e.Arrives)
		t.Arrives = &arrives
	}
	if e.Drop != packet.NotDropped {
		t.Reason = e.Drop.String()
	} else if e.OutOfWindow {
		t.Reason = watch.OutOfWindow
	}
	if e.Standing == watch.InFlow || e.Standing == watch.Related {
		t.Direction = e.Direction.String()
	}
	var service topology.Service
	if t.Stages, service = n.stages(e); service != topology.NoService {
		t.PlatformService = service.String()
	}
	return t
}

func accessOf(e *watch.Event) string {
	if e.Drop != packet.NotDropped {
		return ruleset.Deny.String()
	}
	return ruleset.Allow.String()
}

func tcpFlags(flags uint8) string {
	var letters []byte
	for i, letter := range []byte("FSRPAUEC") {
		if flags>>i&1 != 0 {
			letters = append(letters, letter)
		}
	}
	return string(letters)
}
