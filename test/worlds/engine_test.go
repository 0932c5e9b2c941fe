package worlds

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// outcome is what becomes of a tuple.
type outcome struct {
	Access string
	Reason string // verify's
	Group  string // of Reason rule: the NSG, or rule collection
	Rule   string
}

func (o outcome) String() string {
	if o.Reason != "rule" {
		return o.Access + " " + o.Reason
	}
	return o.Access + " rule " + o.Group + " " + o.Rule
}

// leg is one packet that an attachment sends, and what became of it.
type leg struct {
	from    int
	at      time.Time
	packet  []byte // as sent
	sent    packet.Packet
	arrives packet.Tuple // when it was let pass
	drop    packet.Drop
	to      int // attachment, when it was let pass
	rules   []string
	service bool // the platform's
	floats  bool
	related bool // an ICMP error that no rule has judged
	half    bool // its flow is known at one end only
}

// seen is what the engine did with a tuple.
type seen struct {
	outcome
	legs []leg
	end  bool // the last leg reached its receiver
}

// day is longer than any timeout: each tuple finds an empty table.
const day = 24 * time.Hour

// visit is a packet at an attachment that has received it.
type visit struct {
	attachment int
	packet     packet.Tuple
}

// engine lets the engine carry a tuple's first packet. An appliance that gets it sends it on
// unchanged. A packet that comes to an appliance again goes in a circle: it has no way to its end.
func (b *built) engine(t *tuple) *seen {
	b.now = b.now.Add(day)
	x := &seen{}
	been := map[visit]bool{}
	frame, from := t.frame(), t.From
	for i := range ask.MaxLegs {
		l := b.carry(b.now.Add(time.Duration(i)*time.Millisecond), from, frame)
		x.legs = append(x.legs, l)
		at := visit{l.to, l.arrives}
		switch {
		case l.drop == packet.DropFlowConflict && b.returns(&l, been), l.drop == packet.NotDropped && been[at]:
			x.outcome = outcome{Access: "Deny", Reason: "noRoute"}
			return x
		case l.drop != packet.NotDropped:
			x.outcome = b.denied(&l)
			return x
		case l.floats || b.receives(l.to, l.arrives.Dst):
			x.end = true
			x.outcome = b.allowed(x.legs)
			return x
		}
		been[at] = true
		from = l.to
	}
	x.outcome = outcome{Access: "Deny", Reason: "noRoute"}
	return x
}

// returns reports that a packet was on its way to an attachment that has received it already, where
// its own flow stood in the way. Once that flow is over the packet gets there.
func (b *built) returns(l *leg, been map[visit]bool) bool {
	b.now = b.now.Add(day)
	again := b.carry(b.now, l.from, append(make([]byte, tun.HeaderLen), l.packet...))
	return again.drop == packet.NotDropped && been[visit{again.to, again.arrives}]
}

// carry carries one packet; the frame is then as it arrives.
func (b *built) carry(at time.Time, from int, frame []byte) leg {
	l := leg{from: from, at: at, packet: slices.Clone(frame[tun.HeaderLen:])}
	var c dataplane.Carried
	var decoder packet.Decoder
	decoder.Decode(l.packet, 0, &l.sent)
	b.carrier.Carry(at, from, frame, &c)
	l.drop, l.to, l.arrives = c.Drop, c.To, c.Packet.Tuple
	if c.Drop == packet.NotDropped && c.InFlow {
		info := b.carrier.Info(c.Flow)
		l.floats = info.Marks&conntrack.Floating != 0
		_, here := b.carrier.Engine().Room().Attachment(info.Key.Zone)
		_, there := b.carrier.Engine().Room().Attachment(info.ReplyKey.Zone)
		l.half = !here || !there
	}
	for _, slot := range c.Slots {
		if topology.ServiceOfSlot(slot) != topology.NoService {
			l.service = true
			continue
		}
		k := &b.keys[slot]
		l.rules = append(l.rules, fmt.Sprintf("%s %s %s", k.NetworkSecurityGroup, k.Direction, k.Rule))
	}
	return l
}

// receives reports that a packet for an address has come to its end at an attachment.
func (b *built) receives(attachment int, dst packet.Addr) bool {
	a := b.snapshot.Attachments[attachment]
	return a.Kind != topology.NetworkInterface ||
		slices.ContainsFunc(a.Addresses, func(own netip.Prefix) bool { return packet.AddrFrom(own.Addr()) == dst })
}

// owns reports that what is attached has an address of its own, or any where it is no NIC.
func (b *built) owns(attachment int, address packet.Addr) bool {
	return b.receives(attachment, address)
}

// denied is the outcome of a leg that ends in a drop.
func (b *built) denied(l *leg) outcome {
	o := outcome{Access: "Deny", Reason: ask.ReasonOf(l.drop)}
	if l.drop == packet.DropRule {
		o.Reason = ask.ReasonRule
		o.Group, o.Rule = deciding(l.rules)
	}
	return o
}

// allowed is the outcome of a way to its end: the last rule that let it pass.
func (b *built) allowed(legs []leg) outcome {
	o := outcome{Access: "Allow", Reason: ask.ReasonNoGroup}
	for i := range legs {
		l := &legs[i]
		if len(l.rules) > 0 {
			o.Reason = ask.ReasonRule
			o.Group, o.Rule = deciding(l.rules)
		}
		if l.service {
			return outcome{Access: "Allow", Reason: ask.ReasonPlatform}
		}
	}
	return o
}

// deciding is the last of the rules that a packet counted on.
func deciding(rules []string) (group, rule string) {
	if len(rules) == 0 {
		return "", ""
	}
	fields := strings.Fields(rules[len(rules)-1])
	return fields[0], fields[2]
}
