package worlds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// A world that is spread over several hosts gives every packet, and every answer, what it gives them on one host: the
// bytes that arrive and where, or the reason to drop, and the rules that count.
func TestManyHostsAnswerAsOne(t *testing.T) {
	seed, n := *seedFlag, *tuplesFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	if n == 0 {
		if n = 20_000; testing.Short() {
			n = 5_000
		}
	}
	t.Logf("-worlds.seed=%d", seed)
	r := &hostsRun{T: t, seed: seed, outcomes: map[string]int{}, kinds: map[string]int{}, excused: map[string]int{}}
	for i := uint64(0); r.tuples < n; i++ {
		r.world(i)
	}
	t.Logf("%d tuples, %d answers, %d between hosts, %d worlds refused; outcomes %v; excused %v", r.tuples, r.answers, r.between, r.refused, r.outcomes, r.excused)
	if len(r.kinds) > 0 {
		t.Errorf("%v", r.kinds)
	}
}

type hostsRun struct {
	*testing.T
	seed                              uint64
	tuples, answers, between, refused int
	outcomes, kinds, excused          map[string]int
}

func (r *hostsRun) world(i uint64) {
	random := rand.New(rand.NewPCG(r.seed, i))
	w := generate(random)
	w.attachAll()
	b, err := w.build()
	if err != nil {
		return
	}
	c, err := b.spread(random, 2+random.IntN(2))
	if err != nil {
		if r.refused++; !strings.Contains(err.Error(), "floating IP") {
			r.Errorf("-worlds.seed=%d, world %d: %v", r.seed, i, err)
		}
		return
	}
	traffic := newTraffic(random, b)
	for range tuplesPerWorld {
		k := traffic.next()
		r.tuples++
		r.compare(i, c, &k)
	}
}

// attachAll gives each NIC an attachment of its own, and each subnet one.
func (w *world) attachAll() {
	if !slices.ContainsFunc(w.Attachments, func(o attachment) bool { return o.Internet }) {
		w.Attachments = append(w.Attachments, attachment{Internet: true})
	}
	has := func(a attachment) bool {
		return slices.ContainsFunc(w.Attachments, func(o attachment) bool { return o.NetworkInterface == a.NetworkInterface && o.Subnet == a.Subnet })
	}
	add := func(a attachment) {
		if !has(a) {
			w.Attachments = append(w.Attachments, a)
		}
	}
	for _, resource := range w.Resources {
		o := resource.(object)
		switch name := o["name"].(string); o["type"] {
		case "Microsoft.Network/networkInterfaces":
			add(attachment{NetworkInterface: name})
		case "Microsoft.Network/virtualNetworks":
			for _, s := range o["properties"].(object)["subnets"].([]any) {
				if sub := s.(object)["name"].(string); sub != "GatewaySubnet" {
					add(attachment{Subnet: name + "/" + sub})
				}
			}
		}
	}
}

// compare carries a tuple, and the answer to what arrives, on one host and on several.
func (r *hostsRun) compare(i uint64, c *cluster, k *tuple) {
	b := c.one
	b.now = b.now.Add(day)
	frame := k.frame()
	from, at := k.From, c.at[k.From]
	for leg := range 4 {
		l, x, same := r.both(i, c, k, 2*leg, b.now.Add(time.Duration(leg)*time.Millisecond), from, at, frame)
		if leg == 0 {
			r.outcomes[l.drop.String()]++
		}
		if !same || l.drop != packet.NotDropped {
			return
		}
		if len(x.met) > 1 {
			r.between++
		}
		answer := answerTo(x.frame)
		r.answers++
		if _, _, same := r.both(i, c, k, 2*leg+1, b.now.Add(time.Duration(leg)*time.Millisecond+100), l.to, x.last, answer); !same {
			return
		}
		if l.floats || b.receives(l.to, l.arrives.Dst) {
			return
		}
		frame, from, at = x.frame, l.to, x.last
		frame = append(make([]byte, tun.HeaderLen), frame[tun.HeaderLen:]...)
	}
}

// both carries a packet on one host and on several, and reports whether all is the same.
func (r *hostsRun) both(i uint64, c *cluster, k *tuple, step int, at time.Time, from int, where place, frame []byte) (leg, crossing, bool) {
	whole, parts := bytes.Clone(frame), bytes.Clone(frame)
	one, several := hits(c.one.carrier.Engine()), c.hits()
	l := c.one.carry(at, from, whole)
	x := c.carry(at, where, parts)
	if c.one.specs[from].Kind == topology.Platform && x.drop == packet.DropNoRoute { // each host has its own
		for n, h := range c.hosts {
			if x.drop != l.drop {
				parts = bytes.Clone(frame)
				x = c.carry(at, place{n, h.platformSlot()}, parts)
			}
		}
	}
	if r.known(c, k, step, from, &l, &x) {
		return l, x, false
	}
	var differs string
	wanted, got := since(one, hits(c.one.carrier.Engine())), since(several, c.hits())
	switch {
	case l.drop != x.drop:
		differs = fmt.Sprintf("one host: %s, several: %s", l.drop, x.drop)
	case l.drop == packet.NotDropped && l.to != x.to:
		differs = fmt.Sprintf("one host: to %s, several: to another", c.one.specs[l.to].Kind)
	case l.drop == packet.NotDropped && !bytes.Equal(whole, parts):
		differs = "other bytes"
	case l.drop != packet.NotDropped && l.drop != packet.DropRule && len(x.met) > 1: // the first host has counted it
	case x.lost: // nobody has the destination, which the sender's host does not know
	case !slices.Equal(wanted, got) || l.service != x.service:
		differs = fmt.Sprintf("%s with other hits", l.drop)
	}
	if differs == "" {
		return l, x, true
	}
	if r.kinds[differs]++; r.kinds[differs] == 1 && len(r.kinds) <= 2*maxReports {
		r.Errorf("-worlds.seed=%d, world %d: %s\n%s\nwhere: %s\n%s (from %d: %s)\n  one host: %s to %d as %s by %v, hits %v\n  several: %s to %d by %v, hits %v\n  %s", r.seed, i, differs, c.one.world, c, k, from, l.sent.Tuple,
			l.drop, l.to, l.arrives, l.rules, wanted, x.drop, x.to, x.rules, got, strings.Join(x.met, "\n  "))
	}
	return l, x, false
}

// known reports what is known to differ, as dataplane/README.md says under "Many hosts". step is odd for answers.
func (r *hostsRun) known(c *cluster, k *tuple, step, from int, l *leg, x *crossing) bool {
	kind := func(attachment int) topology.Kind { return c.one.specs[attachment].Kind }
	passes, answer := l.drop == packet.NotDropped, step%2 == 1
	made := kind(k.From) == topology.NetworkInterface && !c.one.owns(k.From, packet.AddrFrom(k.Src))
	why := ""
	switch {
	case passes && answer && kind(l.to) == topology.Internet && l.half && x.outlet:
		why = "an answer goes to the internet as it is: that host begins a flow with it"
	case !passes && answer && x.drop != packet.NotDropped && l.drop != packet.DropRule && x.drop != packet.DropRule && len(x.met) > 1:
		why = "an answer that the receiver does not know is dropped by its host"
	case made && x.outlet, answer && kind(from) == topology.Internet && passes && kind(l.to) == topology.NetworkInterface && !c.one.owns(l.to, l.arrives.Dst) && !l.floats:
		why = "an appliance makes up an address, and sends from it to the internet"
	case answer && passes && !c.one.snapshot.Routed() && !c.one.owns(l.to, l.arrives.Dst):
		why = "an appliance makes up an address that no route leads back to"
	case x.to == from && x.outlet && (passes && l.to == from || l.drop == packet.DropRule && x.drop == packet.NotDropped):
		why = "a NIC asks itself by its public address, without ports"
	default:
		return false
	}
	r.excused[why]++
	return true
}

// answerTo is what answers a packet that has arrived: of TCP a SYN with ACK.
func answerTo(frame []byte) []byte {
	var decoder packet.Decoder
	var p packet.Packet
	decoder.Decode(frame[tun.HeaderLen:], 0, &p)
	t := tuple{Src: p.Dst.Netip(), Dst: p.Src.Netip(), SrcPort: p.DstPort, DstPort: p.SrcPort, Proto: p.Proto}
	return t.answer(&p)
}
