package worlds

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/tun"
)

// A world that is spread over several hosts gives every packet, and every answer, what it gives them on one host: the
// bytes that arrive and where, or the reason to drop, and the rules that count.
func TestManyHostsAnswerAsOne(t *testing.T) {
	seed, n := *seedFlag, *tuplesFlag
	if seed == 0 {
		seed = 80001 // one of some twenty others had a world that nobody had named yet, such as 70003 and 80028
	}
	if n == 0 {
		if n = 20_000; testing.Short() {
			n = 5_000
		}
	}
	t.Logf("-worlds.seed=%d", seed)
	r := &hostsRun{T: t, seed: seed, outcomes: map[string]int{}, kinds: map[string]int{}, excused: map[string]int{}, lost: map[string]int{}}
	for i := uint64(0); r.tuples < n; i++ {
		r.world(i)
	}
	t.Logf("%d tuples, %d answers, %d between hosts, %d worlds refused, %d reloads, %d questions; outcomes %v; excused %v", r.tuples, r.answers, r.between, r.refused, r.reloads, r.questions, r.outcomes, r.excused)
	t.Logf("%d moves, %d flows joined, lost %v", r.moves, r.joined, r.lost)
	if len(r.kinds) > 0 {
		t.Errorf("%v", r.kinds)
	}
}

// Worlds that were found to differ.
func TestManyHostsAnswerAsOneInFoundWorlds(t *testing.T) {
	for seed, world := range map[uint64]uint64{
		17076405886148665164: 361, // fragments by an appliance that two senders use
		2:                    384, // an ICMP error by an appliance to the internet, with no rule at either end
		27:                   101, // a backend moves to the host of an appliance that has translated
		80028:                339, // a backend that is not peered with its client answers a SYN, and its route leads to the internet
		70003:                185, // an appliance that a route names is not peered with its client
	} {
		r := &hostsRun{T: t, seed: seed, outcomes: map[string]int{}, kinds: map[string]int{}, excused: map[string]int{}, lost: map[string]int{}}
		if r.world(world); len(r.kinds) > 0 || r.answers == 0 {
			t.Errorf("seed %d, world %d: %v, %d answers", seed, world, r.kinds, r.answers)
		}
	}
}

type hostsRun struct {
	*testing.T
	seed                                                  uint64
	tuples, answers, between, refused, reloads, questions int
	history                                               []string // of a tuple
	moves, joined                                         int
	stayed                                                int // of a tuple: flows that a move has ended
	lost                                                  map[string]int
	outcomes, kinds, excused                              map[string]int
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
		r.compare(i, c, &k, random)
		r.ask(i, c, &k)
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

// compare carries a tuple, and what comes of it, on one host and on several: answers, ICMP errors, fragments, and what
// appliances send on. Some meet a reload on their way.
func (r *hostsRun) compare(i uint64, c *cluster, k *tuple, random *rand.Rand) {
	b := c.one
	b.now = b.now.Add(day)
	r.history, r.stayed = nil, 0
	frame, from, at := k.frame(), k.From, c.at[k.From]
	step := 0
	send := func(answer bool, from int, at place, frame []byte) (leg, crossing, bool) {
		step += 2 - step%2
		if answer {
			step++
		}
		b.now = b.now.Add(time.Millisecond)
		return r.both(i, c, k, step, b.now, from, at, frame)
	}
	for range 4 {
		parts := [][]byte{frame}
		if random.IntN(6) == 0 && k.Proto == packet.ProtoUDP {
			parts = fragmentsOf(frame, uint32(step))
		}
		var l leg
		var x crossing
		for n, part := range parts {
			one, several, same := send(false, from, at, part)
			if n == 0 {
				l, x = one, several
			}
			if !same || one.drop != packet.NotDropped {
				return
			}
		}
		r.outcomes[l.drop.String()]++
		if len(x.met) > 1 {
			r.between++
		}
		if random.IntN(12) == 0 {
			r.reload(c)
		}
		if random.IntN(6) == 0 {
			r.move(c, random)
		}
		if c.one.specs[l.to].Kind != topology.Platform { // each host has its own
			x.last = c.at[l.to]
		}
		r.answers++
		switch random.IntN(6) {
		case 0:
			if _, _, same := send(true, l.to, x.last, unreachable(x.frame)); !same {
				return
			}
		default:
			one, several, same := send(true, l.to, x.last, answerTo(x.frame))
			if !same {
				return
			}
			if one.drop == packet.NotDropped && random.IntN(3) == 0 { // whoever gets the answer refuses it
				if c.one.specs[one.to].Kind != topology.Platform {
					several.last = c.at[one.to]
				}
				if _, _, same := send(true, one.to, several.last, unreachable(several.frame)); !same {
					return
				}
			}
		}
		if l.floats || len(parts) > 1 || b.receives(l.to, l.arrives.Dst) {
			return
		}
		frame, from, at = append(make([]byte, tun.HeaderLen), x.frame[tun.HeaderLen:]...), l.to, x.last
	}
}

// ask holds the answers of every host's snapshot against that of the one host: questions judge all ends.
func (r *hostsRun) ask(i uint64, c *cluster, k *tuple) {
	b := c.one
	nic := b.sender(k)
	if nic == nil {
		return
	}
	q := &azure.Flow{Direction: ruleset.Outbound, Protocol: k.Proto, Local: k.Src, Remote: k.Dst, LocalPort: k.SrcPort, RemotePort: k.DstPort, NetworkInterface: nic.ID}
	said := func(s *topology.Snapshot) string {
		result, err := ask.Verify(s, q, true)
		if err != nil {
			return err.Error()
		}
		return outcomeOf(result).String()
	}
	wanted := said(b.snapshot)
	for _, h := range c.hosts {
		if got := said(h.carrier.Engine().Snapshot()); got != wanted && k.Dst != platformAddress && !(strings.HasSuffix(wanted, "noRoute") && c.nobody(k.Dst)) {
			if r.kinds["questions"]++; r.kinds["questions"] == 1 {
				r.Errorf("-worlds.seed=%d, world %d: verify --path %s: one host: %s, %s: %s\n%s\nwhere: %s", r.seed, i, k, wanted, h.name, got, b.world, c)
			}
		}
	}
	r.questions++
}

var platformAddress = netip.MustParseAddr("168.63.129.16")

// reload has every host build its policy anew: nothing may change.
func (r *hostsRun) reload(c *cluster) {
	engines := []*dataplane.Engine{c.one.carrier.Engine()}
	for _, h := range c.hosts {
		engines = append(engines, h.carrier.Engine())
	}
	for _, e := range engines {
		s, err := e.Prepare(c.one.policy)
		if err == nil {
			err = e.Swap(s, nil)
		}
		if err != nil {
			r.Fatal(err)
		}
	}
	r.reloads++
}

// move moves a network interface: flows go on.
func (r *hostsRun) move(c *cluster, random *rand.Rand) {
	moved, came, err := c.move(random)
	if err != nil {
		r.Fatal(err)
	}
	if moved < 0 {
		return
	}
	r.moves++
	r.joined += came.Joined
	for why, n := range came.Lost {
		r.lost[why] += n
		r.stayed += n
	}
	r.history = append(r.history, fmt.Sprintf("attachment %d moves to host%d: %+v", moved, c.at[moved].host, came))
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
	r.history = append(r.history, fmt.Sprintf("from %d %s: %s to %d as %s; %s", from, l.sent.Tuple, l.drop, l.to, l.arrives, strings.Join(x.met, ", ")))
	wanted, got := since(one, hits(c.one.carrier.Engine())), since(several, c.hits())
	if l.related = l.drop == packet.NotDropped && len(wanted) == 0; r.known(c, k, step, from, &l, &x) {
		return l, x, false
	}
	var differs string
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
		r.Errorf("-worlds.seed=%d, world %d: %s\n%s\nwhere: %s\n%s (from %d: %s)\n  one host: %s to %d as %s by %v, hits %v\n  several: %s to %d by %v, hits %v\n  %s\n history:\n  %s", r.seed, i, differs, c.one.world, c, k, from, l.sent.Tuple,
			l.drop, l.to, l.arrives, l.rules, wanted, x.drop, x.to, x.rules, got, strings.Join(x.met, "\n  "), strings.Join(r.history, "\n  "))
	}
	return l, x, false
}

// known reports what is known to differ, as dataplane/README.md says under "Many hosts". step is odd for answers.
func (r *hostsRun) known(c *cluster, k *tuple, step, from int, l *leg, x *crossing) bool {
	kind := func(attachment int) topology.Kind { return c.one.specs[attachment].Kind }
	passes, answer := l.drop == packet.NotDropped, step%2 == 1
	made := kind(k.From) == topology.NetworkInterface && !c.one.owns(k.From, packet.AddrFrom(k.Src))
	twice := kind(k.From) == topology.Gateway && c.one.gatewaysTo(packet.AddrFrom(k.Src).Netip()) > 1
	why := ""
	switch {
	case passes && answer && kind(l.to) == topology.Internet && l.half && x.outlet:
		why = "an answer goes to the internet as it is: that host begins a flow with it"
	case !passes && answer && x.drop != packet.NotDropped && x.drop != packet.DropRule && len(x.met) > 1:
		why = "an answer that the receiver does not know is dropped by its host"
	case !passes && l.drop == packet.DropNoRoute && c.nobody(l.sent.Dst.Netip()):
		why = "nobody is attached to the receiver's subnet: the sender's host asks its rules first"
	case answer && passes && x.drop == packet.DropTCPNoSYN && !c.one.owns(from, l.sent.Src):
		why = "an appliance alone knows the sender of an answer, and that it wants no TCP states"
	case answer && !passes && l.drop == packet.DropTCPNoSYN && x.drop == packet.NotDropped && len(x.met) > 1:
		why = "an answer by an appliance may belong to a flow that another host knows: the receiver's rules decide"
	case answer && passes && x.drop == packet.DropTCPState && len(x.met) > 1:
		why = "answers by two ways from other hosts are one flow at the receiver's"
	case answer && l.sent.IsICMPError() && len(x.met) > 1 &&
		(!l.related || x.drop == packet.DropICMPNoFlow && kind(l.to) == topology.Internet && l.arrives == l.sent.Tuple && !c.one.owns(from, l.sent.Src)):
		why = "an ICMP error goes to an end that does not know the flow: only that end's host knows"
	case passes && answer && made && l.sent.IsICMPError() && x.drop == packet.DropICMPNoFlow && kind(l.to) == topology.Internet:
		why = "an ICMP error goes to the internet of another host, about what an appliance has sent with a public address that it made up"
	case r.stayed > 0 && answer && (kind(from) == topology.Platform || l.to >= 0 && kind(l.to) == topology.Platform || c.one.snapshot.Public(packet.AddrFrom(k.Dst))):
		why = "a move has ended a flow to the platform, or between two NICs of a host by a public address"
	case twice && (x.outlet || answer && kind(from) == topology.Internet):
		why = "two gateways have the same networks behind them"
	case made && x.outlet, answer && kind(from) == topology.Internet && passes && kind(l.to) == topology.NetworkInterface && !c.one.owns(l.to, l.arrives.Dst) && !l.floats:
		why = "an appliance makes up an address, and sends from it to the internet"
	case answer && passes && (x.drop == packet.DropNoRoute || x.drop == packet.DropTCPNoSYN) && (l.arrives.Src != l.sent.Src || !c.one.owns(from, l.sent.Src)) && !c.one.routesTo(from, l.to, &l.sent):
		why = "a backend or an appliance is not peered with the client, and a frontend or a route led to it: no route leads the answer to the client's host"
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

// routesTo reports that a route leads a NIC's packet to an attachment.
func (b *built) routesTo(from, attachment int, p *packet.Packet) bool {
	src := b.snapshot.Admit(b.snapshot.Attachments[from], p.Src)
	if src == nil {
		return true
	}
	to, _ := b.snapshot.Route(src, p.Src, p.Dst)
	return to != nil && to.Attachment == attachment
}

// fragmentsOf are a packet with more payload in two fragments.
func fragmentsOf(frame []byte, id uint32) (list [][]byte) {
	var decoder packet.Decoder
	var p packet.Packet
	decoder.Decode(frame[tun.HeaderLen:], 0, &p)
	whole := packettest.UDP(packettest.Spec{Src: p.Src.Netip().String(), Dst: p.Dst.Netip().String(), SrcPort: p.SrcPort, DstPort: p.DstPort, Payload: 100})
	for _, part := range packettest.Fragments(whole, id, 48) {
		list = append(list, append(make([]byte, tun.HeaderLen), part...))
	}
	return list
}

// unreachable is the error of whoever has got a packet and refuses it.
func unreachable(frame []byte) []byte {
	var decoder packet.Decoder
	var p packet.Packet
	decoder.Decode(frame[tun.HeaderLen:], 0, &p)
	spec := packettest.Spec{Src: p.Dst.Netip().String(), Dst: p.Src.Netip().String(), ICMPType: 3, ICMPCode: 3}
	return append(make([]byte, tun.HeaderLen), packettest.ICMPError(spec, frame[tun.HeaderLen:])...)
}

// answerTo is what answers a packet that has arrived: of TCP a SYN with ACK.
func answerTo(frame []byte) []byte {
	var decoder packet.Decoder
	var p packet.Packet
	decoder.Decode(frame[tun.HeaderLen:], 0, &p)
	t := tuple{Src: p.Dst.Netip(), Dst: p.Src.Netip(), SrcPort: p.DstPort, DstPort: p.SrcPort, Proto: p.Proto}
	return t.answer(&p)
}
