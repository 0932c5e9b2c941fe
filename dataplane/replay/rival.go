package replay

import (
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// rival carries the packets of captures under the other policy.
type rival struct {
	carrier *dataplane.Carrier
	keys    []topology.RuleKey
	carried dataplane.Carried
	frame   [tun.BufferLen + padding]byte
}

// compete carries a packet that the policy has judged under the other one too. frame is as it was before.
//
// A flow is judged by the packet with which the policies begin to differ. The one that denies it would have seen no
// further packet of it, so none is carried there any more.
func (r *Replay) compete(at time.Time, from int, frame []byte) {
	c, v := &r.carried, r.rival
	if c.Waits || c.Packet.Tuple == (packet.Tuple{}) {
		return
	}
	bytes := uint64(c.Packet.WireLen)
	if f := r.changes.of(&c.Packet.Tuple); f != nil {
		r.changes.count(f, uint64(max(c.Packet.Segments, 1)), bytes, at)
		if f.Kind == NewlyAllowed {
			v.carrier.Carry(at, from, frame, &v.carried)
		}
		return
	}
	v.carrier.Carry(at, from, frame, &v.carried)
	if v.carried.Waits || (c.Drop == packet.NotDropped) == (v.carried.Drop == packet.NotDropped) {
		return
	}
	f := r.changes.begin(flowKey{Tuple: c.Packet.Tuple}, opinionOf(c, r.keys), opinionOf(&v.carried, v.keys), at, c.Began || v.carried.Began)
	r.changes.count(f, uint64(max(c.Packet.Segments, 1)), bytes, at)
}

// opinionOf is what a policy says of the packet that it has carried or dropped; keys are its rules.
func opinionOf(c *dataplane.Carried, keys []topology.RuleKey) (o Opinion) {
	o.Access, o.Reason = verdictOf(c)
	if n := len(c.Slots); n > 0 && o.Access != Dropped {
		if slot := c.Slots[n-1]; int(slot) < len(keys) { // beyond are the platform's services
			o.NetworkSecurityGroup, o.Rule = keys[slot].NetworkSecurityGroup, keys[slot].Rule
		}
	}
	return o
}
