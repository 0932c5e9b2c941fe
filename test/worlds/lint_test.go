package worlds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Verify confirms the packet of each finding of lint, and of what lint calls reachable from the internet, that one of
// the policy's public addresses leads there.
func TestVerifyConfirmsWhatLintSaysOfWorlds(t *testing.T) {
	n := 150
	if testing.Short() {
		n = 60
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-worlds.seed=%d", seed)
	confirmed, entered := map[string]int{}, 0
	for i := range uint64(n) {
		random := rand.New(rand.NewPCG(seed, i))
		w := generate(random)
		b, err := w.build()
		if err != nil {
			continue // a world that nobody may have
		}
		for _, f := range ask.Lint(b.snapshot, ask.LintOptions{}).Findings {
			if f.Witness == nil {
				continue
			}
			q := flowOf(f.Witness)
			got, err := ask.Verify(b.snapshot, q, false)
			if err != nil {
				floating := slices.ContainsFunc([]string{"has no address", "leads this flow to", "which several may send from"}, func(why string) bool { return strings.Contains(err.Error(), why) })
				if floating { // a frontend that backends have too
					continue
				}
				t.Fatalf("%+v: %v\n%s", f, err, w)
			}
			if got.Access != f.Witness.Access {
				t.Fatalf("%+v, %+v: verify says %s\n%s", f, *f.Witness, got.Access, w)
			}
			confirmed[f.Code]++
			unassigned := slices.ContainsFunc(b.policy.PublicIPAddresses, func(p *policy.PublicIPAddress) bool { return !p.Address.IsValid() })
			if strings.HasPrefix(f.Message, "The internet reaches ") && q.Direction == ruleset.Inbound && !unassigned {
				entered++
				if answers, ok := b.enters(q); !ok {
					t.Fatalf("%+v, %+v: no public address leads there: %v\n%s", f, *f.Witness, answers, w)
				}
			}
		}
	}
	t.Logf("confirmed %v, %d by a public address", confirmed, entered)
	if entered < n/20 {
		t.Errorf("%d packets came in by a public address: the test says little", entered)
	}
}

func flowOf(w *ask.LintWitness) *azure.Flow {
	number := func(p *uint16) uint16 {
		if p == nil {
			return 0
		}
		return *p
	}
	q := &azure.Flow{NetworkInterface: w.NetworkInterface, Direction: ruleset.Inbound, Protocol: packet.ProtoTCP,
		Local: netip.MustParseAddr(w.Destination), LocalPort: number(w.DestinationPort), Remote: netip.MustParseAddr(w.Source), RemotePort: number(w.SourcePort)}
	if w.Protocol == "UDP" {
		q.Protocol = packet.ProtoUDP
	}
	if w.Direction == "Outbound" {
		q.Direction, q.Local, q.Remote, q.LocalPort, q.RemotePort = ruleset.Outbound, q.Remote, q.Local, q.RemotePort, q.LocalPort
	}
	return q
}

// enters reports whether a public address of the policy leads what the internet sends to the receiver's port.
func (b *built) enters(q *azure.Flow) (answers []string, ok bool) {
	try := func(a netip.Addr, port uint16) bool {
		if !a.IsValid() || a.Is4() != q.Remote.Is4() {
			return false
		}
		public := *q
		public.Local, public.LocalPort = a, port
		for range 64 { // a load balancer may choose the backend by the source
			r, err := ask.Verify(b.snapshot, &public, false)
			switch {
			case err != nil:
				answers = append(answers, err.Error())
			case r.Access == ruleset.Allow.String():
				return true
			default:
				answers = append(answers, fmt.Sprint(public.Local, public.LocalPort, public.Remote, r.Reason, r.RuleName))
			}
			public.Remote = public.Remote.Next()
		}
		return false
	}
	for _, p := range b.policy.PublicIPAddresses {
		if try(p.Address, q.LocalPort) {
			return nil, true
		}
	}
	for _, lb := range b.policy.LoadBalancers {
		for _, r := range lb.Rules {
			if try(r.Frontend.Address, r.FrontendPort) {
				return nil, true
			}
		}
		for _, r := range lb.NATRules {
			for port := int(r.First); port <= int(r.Last); port++ {
				if try(r.Frontend.Address, uint16(port)) {
					return nil, true
				}
			}
		}
	}
	return answers, false
}
