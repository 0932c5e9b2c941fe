// Package worlds holds everybody who says what becomes of a packet to one answer: the engine that
// carries it, verify with and without the path, diagnose, replay and the decision itself. The
// packets are those of random worlds, written as a user would write them.
//
//	go test ./test/worlds -run Worlds -worlds.tuples 100000
//
// A run prints its seed, which -worlds.seed repeats.
package worlds

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var (
	tuplesFlag = flag.Int("worlds.tuples", 0, "number of tuples; 0: 20,000, or 5,000 with -short")
	seedFlag   = flag.Uint64("worlds.seed", 0, "repeats a run; 0: a new seed, and for hosts always the same")
)

const (
	tuplesPerWorld = 40
	// maxReports bounds what a failing run shows: a world is shrunk for each kind of difference.
	maxReports = 5
)

func TestWorldsAgreeOnEveryPacket(t *testing.T) {
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
	r := &run{T: t, seed: seed, outcomes: map[string]int{}, asked: map[string]int{}, kinds: map[string]int{}}
	for i := uint64(0); r.tuples < n; i++ {
		r.world(i)
	}
	t.Logf("%d tuples, %d by way of an appliance; outcomes %v; opinions %v", r.tuples, r.long, r.outcomes, r.asked)
	if len(r.kinds) > 0 {
		t.Errorf("%d tuples differ: %v", r.different, r.kinds)
	}
	r.enough(n)
}

// run counts what is tried.
type run struct {
	*testing.T
	seed              uint64
	tuples, different int
	long              int // tuples that an appliance has sent on
	outcomes          map[string]int
	asked             map[string]int // opinions, by who has them
	kinds             map[string]int // of differences
}

// world tries the tuples of one world.
func (r *run) world(i uint64) {
	random := rand.New(rand.NewPCG(r.seed, i))
	w := generate(random)
	b, err := w.build()
	for tries := 0; err != nil; tries++ {
		if tries == 10 {
			r.Fatalf("the reader refuses a world: %v\n%s", err, w)
		}
		w = generate(random)
		b, err = w.build()
	}
	traffic := newTraffic(random, b)
	var legs []leg
	for range tuplesPerWorld {
		k := traffic.next()
		x := b.engine(&k)
		legs = append(legs, x.legs...)
		r.tuples++
		if len(x.legs) > 1 {
			r.long++
		}
		r.outcomes[x.Access+" "+x.Reason]++
		r.compare(i, w, &k, x, b.opinions(&k, x))
	}
	for n, o := range b.replays(legs) {
		r.asked[o.who]++
		if o.different && r.isNew("replay") {
			l := &legs[min(n, len(legs)-1)]
			r.Errorf("-worlds.seed=%d, world %d: %s\nof attachment %d: engine: %s, to %d by %v\nreplay: %s", r.seed, i, w, l.from, l.drop, l.to, l.rules, o.says)
		}
	}
}

// compare reports the opinions that are not the engine's.
func (r *run) compare(i uint64, w *world, k *tuple, x *seen, opinions []opinion) {
	differ := 0
	for j := range opinions {
		o := &opinions[j]
		r.asked[o.who]++
		if !o.different {
			continue
		}
		differ = 1
		if kind := kindOf(x, o); r.isNew(kind) && len(r.kinds) <= maxReports {
			r.report(i, w, k, kind)
		}
	}
	r.different += differ
}

// isNew counts a difference; it reports the first of a kind.
func (r *run) isNew(kind string) bool {
	r.kinds[kind]++
	return r.kinds[kind] == 1
}

// report shows the smallest world that has a kind of difference, and all opinions there.
func (r *run) report(i uint64, w *world, k *tuple, kind string) {
	less, moved := shrink(w, *k, func(w *world, k tuple) bool { return has(w, &k, kind) })
	b, err := less.build()
	if err != nil {
		r.Fatal(err) // has has built it
	}
	x := b.engine(&moved)
	var said strings.Builder
	for _, o := range b.opinions(&moved, x) {
		mark := " "
		if o.different {
			mark = "*"
		}
		fmt.Fprintf(&said, "\n%s %s: %s", mark, o.who, o.says)
	}
	r.Errorf("-worlds.seed=%d, world %d, shrunk: %s\n%s\n  engine: %s after %d legs%s", r.seed, i, less, &moved, x.outcome, len(x.legs), &said)
}

// has reports whether a world has a kind of difference about a tuple.
func has(w *world, k *tuple, kind string) bool {
	b, err := w.build()
	if err != nil || k.From >= len(b.snapshot.Attachments) {
		return false
	}
	x := b.engine(k)
	for _, o := range b.opinions(k, x) {
		if o.different && kindOf(x, &o) == kind {
			return true
		}
	}
	return false
}

// kindOf tells differences apart roughly: by what the engine and the other say, without names.
func kindOf(x *seen, o *opinion) string {
	words := strings.Fields(o.says)
	return fmt.Sprintf("%s: engine %s %s, it %s", o.who, x.Access, x.Reason, strings.Join(words[:min(2, len(words))], " "))
}

// enough finds a generator that has gone blind: what it no longer makes is not tested.
func (r *run) enough(n int) {
	if n < 5_000 {
		return
	}
	wanted := []string{
		"Allow rule", "Allow noNetworkSecurityGroup", "Allow platform", "Deny rule", "Deny noRoute", "Deny routeNone", "Deny nextHop",
		"Deny closed", "Deny noFrontend", "Deny noBackend", "Deny noOutbound", "Deny asymmetricRoute", "Deny land", "Deny spoofedSource",
	}
	if n >= 20_000 { // the rare ones
		wanted = append(wanted, "Deny smtpBlocked", "Deny forwardedTraffic", "Deny hairpin")
	}
	for _, outcome := range wanted {
		if r.outcomes[outcome] == 0 {
			r.Errorf("no tuple ends with %s", outcome)
		}
	}
	if allowed := r.outcomes["Allow rule"] + r.outcomes["Allow noNetworkSecurityGroup"]; allowed < n/5 {
		r.Errorf("only %d of %d tuples pass", allowed, n)
	}
	if r.long < n/100 {
		r.Errorf("only %d of %d tuples go by way of an appliance", r.long, n)
	}
	for _, who := range []string{"Decide", "verify --path outbound", "verify --path inbound", "verify outbound", "verify inbound", "diagnose outbound", "diagnose inbound", "replay", "Between"} {
		if r.asked[who] < n/10 {
			r.Errorf("%s was asked %d times only", who, r.asked[who])
		}
	}
	if n >= 20_000 && r.asked[onPremisesToFrontend] < n/2000 {
		r.Errorf("%s was asked %d times only", onPremisesToFrontend, r.asked[onPremisesToFrontend])
	}
}
