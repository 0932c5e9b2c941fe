package replay

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/flowtuple"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Beginning is the first packet of a flow, as its ends see it, or a row of a flow log about one end.
type Beginning struct {
	Time time.Time
	// Sender and Receiver are the ends whose rules are asked; nil: not known, or the row is about the other one.
	Sender, Receiver *topology.Endpoint
	// Sent is the packet as its sender's rules see it, Arrives as its receiver's do.
	Sent, Arrives packet.Tuple
	// Recorded says that a flow log says whether it was let through: Denied says that it was not.
	Recorded, Denied bool
	// Midstream says that the capture lacks the beginning of a TCP connection: this may be its server's packet.
	Midstream bool
}

// began tells of the flow that the packet which was carried has begun.
func (r *Replay) began(at time.Time, from int) error {
	c := &r.carried
	info, s := r.carrier.Info(c.Flow), r.carrier.Engine().Snapshot()
	b := Beginning{Time: at, Sent: info.Key.Tuple, Arrives: info.ReplyKey.Reverse(), Sender: s.Admit(s.Attachments[from], info.Key.Src),
		Midstream: c.Packet.Proto == packet.ProtoTCP && c.Packet.TCPFlags&packet.SYN == 0}
	if c.To >= 0 {
		b.Receiver = s.Admit(s.Attachments[c.To], info.Receiver)
	}
	return r.o.Began(&b)
}

// beganRow tells of the flow that a row is about.
func (r *Replay) beganRow(row *flowtuple.Row, end *topology.Endpoint) error {
	b := Beginning{Time: row.Time, Sent: row.Tuple, Arrives: row.Tuple, Recorded: true, Denied: row.State == flowtuple.Denied}
	if b.Receiver = end; row.Outbound {
		b.Sender, b.Receiver = end, nil
	}
	return r.o.Began(&b)
}
