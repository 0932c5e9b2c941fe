package topology

import (
	"cmp"
	"math/bits"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// frontend is an address that stands for others: a public address, or a load balancer's in a
// subnet. A public address without anything behind it is one without a target and rules.
type frontend struct {
	public bool
	// target is the ipConfiguration that has the public address, idle the address's timeout.
	target *Endpoint
	idle   time.Duration
	// rules are a load balancer's rules by protocol and port; they never overlap. anyPort, if
	// not nil, takes what they leave of TCP and UDP.
	rules   []frontendRule
	anyPort *frontendRule
}

// frontendRule is a load balancing rule or an inbound NAT rule.
type frontendRule struct {
	protocol     uint8
	first, last  uint16 // frontend ports
	port         uint16 // of the backend; 0: as it was sent
	backends     []backend
	distribution policy.Distribution
	perPort      bool // each port of the range has a backend of its own, in their order
	floating     bool
	reset        bool
	idle         time.Duration
}

// backend is one endpoint behind a rule.
type backend struct {
	to      *Endpoint
	address packet.Addr
	health  *health // nil: up
	// forwards says that it sends on what a route leads to it.
	forwards bool
}

func (b *backend) up() bool { return b.health == nil || !b.health.down.Load() }

// enter takes a packet through a frontend to an endpoint behind it.
func (s *Snapshot) enter(f *frontend, t *packet.Tuple, w *Way, c *choices) packet.Drop {
	w.To = f.target
	if f.target != nil {
		w.Arrives.Dst = f.target.address
		w.shortenIdle(f.idle, false)
		return f.reach(w, f.target.address)
	}
	r := f.rule(t)
	if r == nil {
		return packet.DropNoFrontend
	}
	b := r.choose(s.options.Seed, &w.Arrives, c)
	if b == nil {
		return packet.DropNoBackend
	}
	w.To = b.to
	if w.hairpins(b.address) {
		return packet.DropHairpin
	}
	if r.floating {
		w.Floating = true
	} else {
		w.Arrives.Dst = b.address
		if r.port != 0 {
			w.Arrives.DstPort = r.port
		}
	}
	w.shortenIdle(r.idle, r.reset)
	return f.reach(w, b.address)
}

// hairpins reports hairpinning without SNAT: the receiver would see its own address as the
// source, which no host accepts.
func (w *Way) hairpins(a packet.Addr) bool { return w.Ports == nil && w.Arrives.Src == a }

// reach sets Closed, and says whether the receiver, which has the address at, is attached.
func (f *frontend) reach(w *Way, at packet.Addr) packet.Drop {
	w.Closed = f.closes(w.To, at)
	if w.To.Attachment < 0 {
		return packet.DropNoRoute
	}
	return packet.NotDropped
}

// closes reports that nothing reaches an address of an endpoint through the frontend.
func (f *frontend) closes(to *Endpoint, at packet.Addr) bool {
	return f.public && to.closesAt(at)
}

// rule finds the rule for a packet; nil when there is none.
func (f *frontend) rule(t *packet.Tuple) *frontendRule {
	if t.Proto != packet.ProtoTCP && t.Proto != packet.ProtoUDP {
		return nil
	}
	low, high := 0, len(f.rules)
	for low < high { // the first that begins behind the port
		middle := (low + high) / 2
		if r := &f.rules[middle]; r.protocol < t.Proto || r.protocol == t.Proto && r.first <= t.DstPort {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low > 0 {
		if r := &f.rules[low-1]; r.protocol == t.Proto && t.DstPort <= r.last {
			return r
		}
	}
	return f.anyPort
}

// choose finds the backend for a packet; nil when none is up. Packets with the same fields
// find the same backend as long as it is up, whatever happens to the others.
func (r *frontendRule) choose(seed uint64, t *packet.Tuple, c *choices) *backend {
	n := len(r.backends)
	if r.perPort {
		if i := int(t.DstPort - r.first); i < n {
			return &r.backends[i]
		}
		return nil
	}
	switch {
	case n == 0:
		return nil
	case c != nil:
		return c.backend(r)
	}
	h := r.hash(seed, t)
	if b := &r.backends[below(h, n)]; b.up() {
		return b
	}
	up := 0
	for i := range r.backends {
		if r.backends[i].up() {
			up++
		}
	}
	// A probe may change a state meanwhile: then the last backend that is up takes the packet.
	nth, last := below(mix(h, uint64(up)), up), -1
	for i := range r.backends {
		if !r.backends[i].up() {
			continue
		}
		last = i
		if nth == 0 {
			break
		}
		nth--
	}
	if last < 0 {
		return nil
	}
	return &r.backends[last]
}

// forwarder is the backend that carries packets between two addresses; nil when none is up, and when
// that one does not forward. It is the same in both directions, because appliances keep states, and
// whatever happens to other backends: of all that are up the one with the greatest hash.
func (r *frontendRule) forwarder(seed uint64, from, to packet.Addr, c *choices) *Endpoint {
	pair := mix(mix(seed, from.Hi), from.Lo) + mix(mix(seed, to.Hi), to.Lo)
	var best *backend
	var most uint64
	for i := range r.backends {
		b := &r.backends[i]
		if h := spread(mix(mix(pair, b.address.Hi), b.address.Lo)); b.up() && (best == nil || h > most) {
			best, most = b, h
		}
	}
	if c != nil {
		best = c.backend(r)
	}
	if best == nil || !best.forwards {
		return nil
	}
	return best.to
}

// hash hashes the fields that the rule's distribution names.
func (r *frontendRule) hash(seed uint64, t *packet.Tuple) uint64 {
	h := mix(mix(mix(mix(seed, t.Src.Hi), t.Src.Lo), t.Dst.Hi), t.Dst.Lo)
	switch r.distribution {
	case policy.DistributionSourceIP:
		return spread(mix(h, 2))
	case policy.DistributionSourceIPProtocol:
		return spread(mix(h, uint64(t.Proto)<<8|3))
	}
	return spread(mix(h, uint64(t.SrcPort)<<32|uint64(t.DstPort)<<16|uint64(t.Proto)<<8|5))
}

// spread makes every bit of a hash depend on every other. Without it, ports that follow one another came to one backend of
// three alone at one seed in a hundred. It is the finalizer of MurmurHash3.
func spread(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// mix folds a word into a hash by a multiplication of 128 bits, as wyhash does.
func mix(h, v uint64) uint64 {
	high, low := bits.Mul64(h^0x9e3779b97f4a7c15, v^0xe7037ed1a0b428db)
	return high ^ low ^ bits.RotateLeft64(h, 29)
}

// below maps a hash to a number less than n.
func below(h uint64, n int) int {
	high, _ := bits.Mul64(h, uint64(n))
	return int(high)
}

func compareFrontendRules(a, b frontendRule) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first))
}
