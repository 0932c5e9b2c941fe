package control

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Trace is one line of /v1/trace: one of the two is there.
type Trace struct {
	Packet *TracedPacket `json:"packet,omitempty"`
	// Summary is the first line, once packets are watched, and the last one; it stands between
	// packets when more are lost or skipped, once a second at most.
	Summary *WatchSummary `json:"summary,omitempty"`
}

// TracedPacket is what became of a packet.
type TracedPacket struct {
	Time time.Time `json:"time"` // when it was read
	// From is the attachment that it came from, To the one that it went to or would have gone
	// to; empty where that is not known.
	From string `json:"from"`
	To   string `json:"to"`
	// Protocol to DestinationPort are those of the packet as it came; of a malformed one they are
	// empty. The ports are 0 for what has none, the identifier stands in SourcePort for an ICMP echo
	// request, and in DestinationPort for the reply.
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
	// TCPFlags are letters such as SA for SYN and ACK; TCP only.
	TCPFlags string `json:"tcpFlags,omitempty"`
	ICMPType *uint8 `json:"icmpType,omitempty"`
	ICMPCode *uint8 `json:"icmpCode,omitempty"`
	// FragmentOffset is where a fragment's bytes stand in its datagram; absent for others.
	FragmentOffset *uint16 `json:"fragmentOffset,omitempty"`
	Length         uint32  `json:"length"`   // in bytes, from the IP header on
	Segments       uint32  `json:"segments"` // packets on a wire that it stands for
	// Arrives is what the receiver sees, or would have seen of a denied packet; absent when it is what was sent.
	Arrives *FlowTuple `json:"arrives,omitempty"`
	// Access is Allow for what was carried and Deny for what was dropped, for the Reason.
	Access string `json:"access"`
	Reason string `json:"reason,omitempty"` // as in nsgd_drops_total
	// Flow is new, when the packet has begun one, live, related to one, or none, and Direction
	// original or reply, in a flow or related to one.
	Flow      string `json:"flow"`
	Direction string `json:"direction,omitempty"`
	// Stages are the rules that were asked, in this order, the denying one last; in a live flow, those
	// that had allowed it. A rule that is no more has priority 0.
	Stages []azure.VerificationStage `json:"stages"`
	// PlatformService is the service of the platform for which it passed; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	// Generation is that of the policy that decided.
	Generation uint64 `json:"generation"`
}

func ends(t *packet.Tuple) FlowTuple {
	return FlowTuple{t.Src.String(), t.SrcPort, t.Dst.String(), t.DstPort}
}

func tracedPacket(n *dataplane.Namer, e *watch.Event) *TracedPacket {
	p := &e.Packet
	t := &TracedPacket{
		Time: time.Unix(0, e.Time).UTC(), From: n.Attachment(e.From), To: n.Attachment(e.To),
		Length: e.Length, Segments: p.Segments,
		Access: accessOf(e), Flow: e.Standing.String(), Generation: e.Generation,
	}
	if p.Dst != (packet.Addr{}) {
		at := ends(&p.Tuple)
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
		arrives := ends(&e.Arrives)
		t.Arrives = &arrives
	}
	if e.Drop != packet.NotDropped {
		t.Reason = e.Drop.String()
	}
	if e.Standing == watch.InFlow || e.Standing == watch.Related {
		t.Direction = e.Direction.String()
	}
	var service topology.Service
	if t.Stages, service = n.Stages(e); service != topology.NoService {
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

// trace writes a line of JSON for each packet.
func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, "application/x-ndjson", func(*WatchRequest) int { return 0 }, func(st *stream) (encoder, error) {
		e := json.NewEncoder(st.out)
		e.SetEscapeHTML(false)
		return traceLines{st.namer, e}, nil
	})
}

type traceLines struct {
	namer *dataplane.Namer
	lines *json.Encoder
}

func (t traceLines) packet(e *watch.Event, _ []byte) error {
	traced := tracedPacket(t.namer, e)
	return t.lines.Encode(Trace{Packet: traced})
}

func (t traceLines) summary(s WatchSummary) error { return t.lines.Encode(Trace{Summary: &s}) }
