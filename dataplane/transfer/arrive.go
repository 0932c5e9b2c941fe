package transfer

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Arrived says what became of the flows of a transfer.
type Arrived struct {
	// Flows go on; Joined of them are one with what this host knew of their other end.
	Flows, Joined int
	// Lost do not go on, by why: see conntrack.Loss.
	Lost map[string]int
}

// arrival is a transfer that arrives.
type arrival struct {
	*Transfer
	engine *dataplane.Engine
	s      *topology.Snapshot
	nic    *topology.Attachment
	// appliances are those of this host that may have sent in another's name.
	appliances []*topology.Attachment
	joined     int
}

// Arrive has the flows go on in an engine, where the network interface is attached in the snapshot that decides next. A flow
// whose other end is on this host too goes on there by that end's own record alone.
func (t *Transfer) Arrive(e *dataplane.Engine, s *topology.Snapshot) (a Arrived, err error) {
	x := &arrival{Transfer: t, engine: e, s: s, nic: find(s, t.NetworkInterface)}
	if x.nic == nil {
		return a, ErrNotAttached
	}
	for _, b := range s.Attachments {
		if b.Forwards() && b != x.nic {
			x.appliances = append(x.appliances, b)
		}
	}
	a.Lost = map[string]int{}
	now := e.Now()
	for _, image := range t.images {
		got, err := e.Flows().Import(image, &conntrack.Arrivals{Now: now, Later: now - t.Now, Place: x.place})
		if err != nil {
			return a, err
		}
		a.Flows += got.Flows
		for why, n := range got.Lost {
			if n > 0 {
				a.Lost[conntrack.Loss(why).String()] += n
			}
		}
	}
	zone := conntrack.LostZone.String()
	if a.Joined = x.joined; x.joined > 0 { // they are counted there
		a.Flows += x.joined
		if a.Lost[zone] -= x.joined; a.Lost[zone] == 0 {
			delete(a.Lost, zone)
		}
	}
	t.images = nil
	return a, nil
}

const sender = conntrack.Translated | conntrack.Floating // marks of flows that the sender's host translates

// place is where a flow goes on.
func (x *arrival) place(i *conntrack.FlowInfo) (to conntrack.Placing, ok bool) {
	from, reply := x.zones[i.Key.Zone], x.zones[i.ReplyKey.Zone]
	n := uint16(x.nic.Index)
	switch {
	case from.Kind == Own && reply.Kind == Own:
		to = conntrack.Placing{Zone: n, ReplyZone: n, Slots: x.slots(i.Slots, everything)}
		return to, i.Marks&conntrack.Shared == 0 && !sourceChanges(i) && x.owns(i.Key.Src) && x.owns(i.Receiver)
	case from.Kind == Own && x.owns(i.Key.Src):
		return x.sent(i, reply)
	case reply.Kind == Own && x.owns(i.Receiver):
		return x.received(i, from)
	}
	return to, false
}

// owns reports that the network interface may send from an address.
func (x *arrival) owns(a packet.Addr) bool { return x.s.Admit(x.nic, a) != nil }

// sent places a flow that the network interface has begun.
func (x *arrival) sent(i *conntrack.FlowInfo, other Zone) (to conntrack.Placing, ok bool) {
	n := uint16(x.nic.Index)
	to = conntrack.Placing{Zone: n, ReplyZone: x.engine.Room().Far(x.nic.Index), Slots: x.slots(i.Slots, outbound)}
	switch other.Kind {
	case Internet:
		at := x.s.Through(x.nic, x.Host)
		if at == nil || !at.Inlet() {
			return to, false
		}
		if x.s.Admit(x.nic, i.Key.Src).Has(i.Key.Src) { // else answers come by a fabric of its own
			to.ReplyZone = uint16(at.Index)
		}
		to.Plain = &i.Key.Tuple
		return to, true
	case Elsewhere:
		at := x.s.Through(x.nic, other.Host)
		switch {
		case at == nil || i.Marks != 0:
			return to, false
		case at.Outlet():
			x.joinOut(i, at, to.Slots)
			return to, false
		}
		to.ReplyZone = uint16(at.Index)
		return to, true
	case Far, Near:
	default:
		return to, false
	}
	if i.Marks == 0 { // an appliance's answers from the internet come by a fabric of its own
		src := x.s.Admit(x.nic, i.Key.Src)
		end, _ := x.s.Route(src, i.Key.Src, i.Key.Dst)
		return to, end != x.s.Outside() || !x.joinOut(i, x.outlet(), to.Slots)
	}
	if i.Marks&sender == 0 || i.Marks&conntrack.Shared != 0 || sourceChanges(i) {
		return to, false
	}
	peer := x.s.Peer(x.nic, i.Receiver)
	if peer == nil || peer.Attachment < 0 {
		return to, false
	}
	if peer.Elsewhere {
		return to, true
	}
	// The receiver is here: what it knows of the flow ends in its favour.
	p := uint16(peer.Attachment)
	here, there := x.engine.Flows().Find(&conntrack.Key{Tuple: i.ReplyKey.Tuple, Zone: p})
	if !there || here.Marks != 0 || here.ReplyKey.Zone != p || here.Key.Zone != x.engine.Room().Far(peer.Attachment) || !x.engine.Flows().EndAs(&here.Key, conntrack.EndMoved) {
		return to, false
	}
	to.ReplyZone, to.Slots = p, merged(to.Slots, here.Slots)
	return to, true
}

// received places a flow that somebody else has begun.
func (x *arrival) received(i *conntrack.FlowInfo, other Zone) (to conntrack.Placing, ok bool) {
	n := uint16(x.nic.Index)
	arrives := i.ReplyKey.Reverse()
	to = conntrack.Placing{Zone: x.engine.Room().Far(x.nic.Index), ReplyZone: n, Slots: x.slots(i.Slots, inbound), Plain: &arrives}
	switch other.Kind {
	case Internet:
		if i.Marks&conntrack.Floating != 0 {
			return to, true
		}
		at := x.s.Through(x.nic, x.Host)
		if at == nil || !at.Inlet() {
			return to, false
		}
		to.Zone = uint16(at.Index)
		return to, true
	case Elsewhere:
		at := x.s.Through(x.nic, other.Host)
		switch {
		case at == nil || i.Marks != 0:
			return to, false
		case at.Outlet():
			x.joinIn(i, at, to.Slots)
			return to, false
		}
		to.Zone = uint16(at.Index)
		return to, true
	case Near:
		if sourceChanges(i) {
			return to, false
		}
	case Far:
		if i.Marks != 0 {
			return to, false
		}
	default:
		return to, false
	}
	for _, b := range x.appliances {
		if x.joinSender(i, uint16(b.Index), to.Slots) {
			return to, false
		}
	}
	peer := x.s.Peer(x.nic, arrives.Src)
	if peer == nil { // behind a gateway, or on the internet with floating IP
		if x.joinIn(i, x.outlet(), to.Slots) {
			return to, false
		}
		peer, _ = x.s.Route(x.s.Admit(x.nic, i.Receiver), arrives.Dst, arrives.Src)
	}
	if peer == nil || peer.Attachment < 0 || peer.Elsewhere {
		return to, true
	}
	return to, !x.joinSender(i, uint16(peer.Attachment), to.Slots)
}

// joinSender joins a flow to the record of its sender on this host, an attachment, that has translated it: that one's becomes the
// record of both ends. It is false where the sender has none.
func (x *arrival) joinSender(i *conntrack.FlowInfo, sends uint16, slots conntrack.Slots) bool {
	far := x.engine.Room().Far(int(sends))
	here, there := x.engine.Flows().Find(&conntrack.Key{Tuple: i.ReplyKey.Tuple, Zone: far})
	if !there || here.Marks&sender == 0 || here.Key.Zone != sends || here.ReplyKey.Zone != far {
		return false
	}
	x.join(&here, conntrack.Placing{Zone: sends, ReplyZone: uint16(x.nic.Index), Slots: merged(here.Slots, slots)})
	return true
}

// outlet is this host's, in the group of the network interface; nil: it has no internet.
func (x *arrival) outlet() *topology.Attachment {
	for _, a := range x.s.Attachments {
		if a.Outlet() {
			return x.s.Through(x.nic, a.Translates())
		}
	}
	return nil
}

// joinOut joins a flow to the internet that this host has translated all along. It is false without one.
func (x *arrival) joinOut(i *conntrack.FlowInfo, outlet *topology.Attachment, slots conntrack.Slots) bool {
	if outlet == nil {
		return false
	}
	far := x.engine.Room().Far(outlet.Index)
	here, there := x.engine.Flows().Find(&conntrack.Key{Tuple: i.Key.Tuple, Zone: far})
	if !there || here.Key.Zone != far {
		return false
	}
	x.join(&here, conntrack.Placing{Zone: uint16(x.nic.Index), ReplyZone: here.ReplyKey.Zone, Slots: slots})
	return true
}

// joinIn is joinOut for a flow from the internet.
func (x *arrival) joinIn(i *conntrack.FlowInfo, outlet *topology.Attachment, slots conntrack.Slots) bool {
	if outlet == nil {
		return false
	}
	far := x.engine.Room().Far(outlet.Index)
	here, there := x.engine.Flows().Find(&conntrack.Key{Tuple: i.ReplyKey.Tuple, Zone: far})
	if !there || here.ReplyKey.Zone != far || !x.owns(here.Receiver) {
		return false
	}
	x.join(&here, conntrack.Placing{Zone: here.Key.Zone, ReplyZone: uint16(x.nic.Index), Slots: slots})
	return true
}

// join has this host's record of a flow go on as that of both ends.
func (x *arrival) join(here *conntrack.FlowInfo, to conntrack.Placing) {
	if x.engine.Flows().Rezone(here, &to) {
		x.joined++
	}
}

func everything(topology.RuleKey, topology.Service) bool { return true }

// slots are this host's of the rules that a flow has at the sender, of a part. Rules that this host's policy lacks are left
// out.
func (x *arrival) slots(slots conntrack.Slots, of part) (here conntrack.Slots) {
	n := 0
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		service := topology.ServiceOfSlot(slot)
		k := x.rules[slot] // no rule has the key of one that was not told
		if service == topology.NoService {
			own, known := x.engine.Registry().Slot(k)
			if !known {
				continue
			}
			slot = own
		} else if service >= topology.NumServices || service.Slot() != slot {
			continue
		}
		if of(k, service) {
			here.Set(n, slot)
			n++
		}
	}
	return here
}

// merged are the slots of both ends.
func merged(sent, received conntrack.Slots) (all conntrack.Slots) {
	n := 0
	for _, slots := range []conntrack.Slots{sent, received} {
		for ; slots.More() && n < conntrack.MaxSlots; slots = slots.Rest() {
			all.Set(n, slots.First())
			n++
		}
	}
	return all
}
