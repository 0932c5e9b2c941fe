package transfer

import (
	"encoding/json"
	"io"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// Departure is a network interface that leaves an engine with its flows. Its methods are called in their order, by one
// goroutine, between Engine.Rearrange's prepare and the moment when the next snapshot decides.
type Departure struct {
	engine *dataplane.Engine
	nic    *topology.Attachment
	host   string
	frozen bool
}

// Depart begins a departure of a network interface, by its id, from the host of a name.
func Depart(e *dataplane.Engine, nic, host string) (*Departure, error) {
	a := find(e.Snapshot(), nic)
	if a == nil {
		return nil, ErrNotAttached
	}
	return &Departure{engine: e, nic: a, host: host}, nil
}

// Freeze has the engine carry nothing from or to the network interface, until Thaw.
func (d *Departure) Freeze() {
	d.engine.Freeze(d.nic.Index)
	d.frozen = true
}

// Thaw takes Freeze back.
func (d *Departure) Thaw() {
	if d.frozen {
		d.engine.Thaw(d.nic.Index)
		d.frozen = false
	}
}

// touches reports a flow with an end at the network interface.
func (d *Departure) touches(i *conntrack.FlowInfo) bool {
	n := uint16(d.nic.Index)
	return i.Key.Zone == n || i.ReplyKey.Zone == n
}

// Write sends the flows. Nothing changes here.
func (d *Departure) Write(w io.Writer, id string) (flows int, err error) {
	h := Head{NetworkInterface: id, Host: d.host, Now: d.engine.Now()}
	zones, rules := map[uint16]bool{}, map[uint32]bool{}
	keys := d.engine.Registry().Keys()
	err = d.engine.Flows().Export(func(i *conntrack.FlowInfo) bool {
		if !d.touches(i) {
			return false
		}
		for _, zone := range []uint16{i.Key.Zone, i.ReplyKey.Zone} {
			if !zones[zone] {
				zones[zone] = true
				h.Zones = append(h.Zones, d.zone(zone))
			}
		}
		for slots := i.Slots; slots.More(); slots = slots.Rest() {
			if slot := slots.First(); int(slot) < len(keys) && !rules[slot] {
				rules[slot] = true
				h.Rules = append(h.Rules, Rule{slot, keys[slot]})
			}
		}
		return true
	}, func(image []byte) error {
		n, err := conntrack.CheckTransfer(image)
		if n == 0 || err != nil { // all have ended meanwhile
			return err
		}
		h.Flows += n
		return writePart(w, partImage, image)
	})
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(&h)
	if err != nil {
		return 0, err
	}
	return h.Flows, writePart(w, partHead, text)
}

// zone says what one of this host's is to the network interface.
func (d *Departure) zone(zone uint16) Zone {
	index, whole := d.engine.Room().Attachment(zone)
	a := d.engine.Snapshot().Attachments[index]
	z := Zone{Zone: zone, Kind: Left}
	switch {
	case index == d.nic.Index && whole:
		z.Kind = Own
	case index == d.nic.Index:
		z.Kind = Far
	case !whole:
	case a.Inlet():
		z.Kind, z.Host = Elsewhere, a.Translates()
	case a.Kind == topology.Internet:
		z.Kind = Internet
	case a.Kind == topology.NetworkInterface, a.Kind == topology.Subnet, a.Kind == topology.Gateway:
		z.Kind = Near
	}
	return z
}

// Remain leaves of each flow what ends on this host, and ends what does not: the network interface is elsewhere in the
// next snapshot. It returns how many flows have gone.
func (d *Departure) Remain(next *topology.Snapshot) (gone int) {
	return d.engine.Flows().Leave(func(i *conntrack.FlowInfo) bool {
		if !d.touches(i) {
			return false
		}
		to, stays := d.remains(next, i)
		return !stays || !d.engine.Flows().Rezone(i, &to)
	})
}

// remains is what stays of a flow. stays is false where nothing does.
func (d *Departure) remains(next *topology.Snapshot, i *conntrack.FlowInfo) (to conntrack.Placing, stays bool) {
	n := uint16(d.nic.Index)
	sends := i.Key.Zone == n
	other := i.ReplyKey.Zone
	if !sends {
		other = i.Key.Zone
	}
	index, whole := d.engine.Room().Attachment(other)
	if !whole || other == n {
		return to, false
	}
	switch a := next.Attachments[index]; a.Kind {
	case topology.Internet:
		outlet := next.Through(d.nic, d.host)
		if outlet == nil || !outlet.Outlet() {
			return to, false
		}
		to.Zone, to.ReplyZone = d.engine.Room().Far(outlet.Index), other
		to.Slots = d.slots(i.Slots, services)
	case topology.NetworkInterface, topology.Subnet, topology.Gateway:
		if sourceChanges(i) {
			return to, false
		}
		to.Zone, to.ReplyZone = d.engine.Room().Far(index), other
		if to.Slots = d.slots(i.Slots, outbound); sends {
			arrives := i.ReplyKey.Reverse()
			to.Plain, to.Slots = &arrives, d.slots(i.Slots, inbound)
		}
	default:
		return to, false
	}
	if !sends {
		to.Zone, to.ReplyZone = to.ReplyZone, to.Zone
	}
	return to, true
}

// sourceChanges reports a flow between ends of this host that the internet's translation has to do with: a network
// interface asks another one by a public address.
func sourceChanges(i *conntrack.FlowInfo) bool {
	return i.Key.Src != i.ReplyKey.Dst || i.Key.SrcPort != i.ReplyKey.DstPort
}

// part says which slots are an end's: services are the sender's.
type part func(topology.RuleKey, topology.Service) bool

func outbound(k topology.RuleKey, s topology.Service) bool {
	return s != topology.NoService || k.Direction == ruleset.Outbound
}
func inbound(k topology.RuleKey, s topology.Service) bool {
	return s == topology.NoService && k.Direction == ruleset.Inbound
}
func services(_ topology.RuleKey, s topology.Service) bool { return s != topology.NoService }

// slots are those of a part.
func (d *Departure) slots(slots conntrack.Slots, of part) (part conntrack.Slots) {
	keys := d.engine.Registry().Keys()
	n := 0
	for ; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		var k topology.RuleKey
		if int(slot) < len(keys) {
			k = keys[slot]
		}
		if of(k, topology.ServiceOfSlot(slot)) {
			part.Set(n, slot)
			n++
		}
	}
	return part
}
