package replay

import (
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// The verdicts of a packet.
const (
	Allow   = "Allow"
	Deny    = "Deny" // by a rule
	Dropped = "Drop" // for another reason
	Wait    = "Wait" // a fragment that came before its datagram's first one
	Skipped = "Skip" // not judged
)

// Packet is what became of one packet of a capture.
type Packet struct {
	File   string    `json:"file"`
	Number int       `json:"packet"` // in the file, from 1
	Time   time.Time `json:"time"`
	// From and To are network interfaces or attachments, or with network interfaces chosen whoever the
	// other end is: internet, platform, onPremises, a subnet, another network interface, or nowhere, which is an
	// address that the network has no way to. Absent where not known.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Direction is Outbound or Inbound, as the chosen network interface sees it.
	Direction       string  `json:"direction,omitempty"`
	Protocol        string  `json:"protocol,omitempty"`
	Source          string  `json:"source,omitempty"`
	SourcePort      uint16  `json:"sourcePort,omitempty"` // the identifier for ICMP
	Destination     string  `json:"destination,omitempty"`
	DestinationPort uint16  `json:"destinationPort,omitempty"`
	ICMPType        *uint8  `json:"icmpType,omitempty"`
	Bytes           uint32  `json:"bytes"` // of the IP packet, as counted
	Verdict         string  `json:"verdict"`
	Reason          string  `json:"reason"` // newFlow, flow, rule or noNetworkSecurityGroup when allowed; else the drop's or the skip's
	Rules           []Judge `json:"rules,omitempty"`
	PlatformService string  `json:"platformService,omitempty"`
	// Recorded is what the capture says, with Compare.
	Recorded *Recorded `json:"recorded,omitempty"`
	Differs  bool      `json:"differs,omitempty"`
}

// Judge is a rule that the packet counts on: that judged it, or had allowed its flow.
type Judge = inspect.FlowRule

// show describes the packet that has just been judged or skipped.
func (r *Replay) show(p *pcap.Packet, from int, skip Skip) {
	s := &r.shown
	*s = Packet{File: r.file.File, Number: p.Number, Time: p.Time, Rules: s.Rules[:0], Verdict: Skipped, Reason: skip.String(), Bytes: uint32(p.Length)}
	if r.o.Compare && len(p.Comment) > 0 {
		recorded := recordedOf(p.Comment)
		s.Recorded = &recorded
	}
	if skip != NotSkipped {
		return
	}
	c := &r.carried
	s.Verdict, s.Reason = verdictOf(c)
	s.Bytes = c.Packet.WireLen
	for _, slot := range c.Slots {
		if service := topology.ServiceOfSlot(slot); service != topology.NoService {
			s.PlatformService = service.String()
		} else if k := &r.keys[slot]; true {
			s.Rules = append(s.Rules, Judge{NetworkSecurityGroup: k.NetworkSecurityGroup, Direction: k.Direction.String(), Name: k.Rule})
		}
	}
	if t := &c.Packet.Tuple; t.Src != (packet.Addr{}) || t.Dst != (packet.Addr{}) {
		s.Protocol = packet.ProtocolName(t.Proto)
		s.Source, s.SourcePort, s.Destination, s.DestinationPort = t.Src.String(), t.SrcPort, t.Dst.String(), t.DstPort
		if t.Proto == packet.ProtoICMP || t.Proto == packet.ProtoICMPv6 {
			s.ICMPType = &c.Packet.ICMPType
		}
		r.ends(from, t)
	}
}

// verdictOf is the one of a packet that has been carried.
func verdictOf(c *dataplane.Carried) (verdict, reason string) {
	switch {
	case c.Waits:
		return Wait, "first_fragment"
	case c.Drop == packet.DropRule:
		return Deny, c.Drop.String()
	case c.Drop != packet.NotDropped:
		return Dropped, c.Drop.String()
	case c.Began:
		return Allow, "newFlow"
	case c.InFlow:
		return Allow, "flow"
	case len(c.Slots) > 0:
		return Allow, "rule"
	}
	return Allow, "noNetworkSecurityGroup"
}

// ends names who sends the packet and who receives it.
func (r *Replay) ends(from int, t *packet.Tuple) {
	s, snapshot := &r.shown, r.carrier.Engine().Snapshot()
	if r.owners == nil {
		s.From = snapshot.Attachments[from].Name
		if c := &r.carried; c.Drop == packet.NotDropped && !c.Waits {
			s.To = snapshot.Attachments[c.To].Name
		}
		return
	}
	to, own := r.owners[t.Dst]
	switch {
	case from < r.internet && own:
		s.From, s.To = snapshot.Attachments[from].Name, snapshot.Attachments[to].Name
	case from < r.internet:
		s.Direction, s.From, s.To = "Outbound", snapshot.Attachments[from].Name, r.other(from, t.Src, t.Dst)
	default:
		s.Direction, s.From, s.To = "Inbound", r.other(to, t.Dst, t.Src), snapshot.Attachments[to].Name
	}
}

// other names the other end of a NIC's packet.
func (r *Replay) other(nic int, own, address packet.Addr) string {
	snapshot := r.carrier.Engine().Snapshot()
	e := snapshot.Endpoint(r.o.NetworkInterfaces[nic], own.Netip())
	who := snapshot.Sender(e, address.Netip())
	switch {
	case who == nil || address.IsMulticast() || address.IsBroadcast():
		return "nowhere"
	case who.NetworkInterface != nil:
		return who.NetworkInterface.Name
	case who.Subnet != nil:
		return who.Subnet.Name
	case who.Attachment == r.internet:
		return topology.Internet.String()
	case who.Attachment == r.platform:
		return topology.Platform.String()
	}
	return "onPremises"
}
