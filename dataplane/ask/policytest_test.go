package ask

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// hasService is the slow reference of what a test is about.
func hasService(services []analysis.Service, k *packet.Tuple) bool {
	if services == nil {
		return true
	}
	return slices.ContainsFunc(services, func(s analysis.Service) bool {
		ports := s.Ports == nil || slices.ContainsFunc(s.Ports, func(r ruleset.PortRange) bool { return r.First <= k.DstPort && k.DstPort <= r.Last })
		return s.Protocol == k.Proto && ports
	})
}

// randomServices are those of a random list, such as a test file has.
func randomServices(t *testing.T, r *rand.Rand) []analysis.Service {
	t.Helper()
	protocols := [][]string{nil, nil, {"TCP"}, {"UDP"}, {"TCP", "UDP"}, {"ESP"}}[r.IntN(6)]
	var ports []string
	if !slices.Contains(protocols, "ESP") && r.IntN(2) == 0 {
		ports = [][]string{{"80"}, {"22", "79-81"}, {"0-1023"}, {"https"}}[r.IntN(4)]
	}
	services, err := ServicesOf(protocols, ports)
	if err != nil {
		t.Fatal(err)
	}
	return services
}

// randomEnd is an address, or a prefix around it.
func randomEnd(r *rand.Rand, a netip.Addr) string {
	bits := a.BitLen() - []int{0, 2, 8, 16}[r.IntN(4)]
	if bits == a.BitLen() {
		return a.String()
	}
	p, _ := a.Prefix(bits)
	return p.String()
}

// Verify confirms each packet that breaks a test, and no packet of a test that holds breaks it.
func TestAPolicyTestHoldsForEveryPacketOrShowsOneThatBreaksIt(t *testing.T) {
	policies, passed, failed, excepted := worldsOf(150, 20), 0, 0, 0
	for seed := range uint64(policies) {
		s := randomPolicies(t, seed)[0]
		b := NewBetween(s, 0)
		r := rand.New(rand.NewPCG(seed, 17))
		for range 12 {
			from, to, ok := randomPair(r, s)
			if !ok {
				continue
			}
			test := &PolicyTest{TestPackets: TestPackets{From: []string{randomEnd(r, from)}, To: []string{randomEnd(r, to)}, Services: randomServices(t, r)},
				Expect: []ruleset.Access{ruleset.Allow, ruleset.Deny}[r.IntN(2)]}
			if r.IntN(2) == 0 {
				test.Except = []TestPackets{{To: test.To, Services: randomServices(t, r)}}
			}
			about := func(k *packet.Tuple) bool {
				except := len(test.Except) > 0 && hasService(test.Except[0].Services, k)
				if except {
					excepted++
				}
				return hasService(test.Services, k) && !except
			}
			sender := s.SendersFrom(from)[0]
			result := b.Test(test)
			switch result.Result {
			case TestError:
				if !strings.HasPrefix(result.Message, "the test is about no packet") {
					t.Fatalf("seed %d: %+v: %s", seed, test, result.Message)
				}
			case TestFail:
				failed++
				k := result.Witness.tuple(t)
				if result.Access == test.Expect.String() || !about(&k) {
					t.Fatalf("seed %d: %+v is broken by %v, which is %s", seed, test, k, result.Access)
				}
				senders := s.SendersFrom(k.Src.Netip())
				if len(senders) != 1 {
					continue // verify asks about one
				}
				want, err := Verify(s, asFlow(b, &k, senders[0]), true)
				if err == nil && !(isICMP(&k) && k.DstPort != 8 && k.DstPort != 128) && (want.Access != result.Access || want.Reason != result.Reason) {
					t.Fatalf("seed %d: %+v is broken by %v, of which verify says %+v", seed, test, k, want)
				}
			default:
				passed++
			}
			for range 25 {
				k := packetBetween(r, from, to)
				want, err := Verify(s, asFlow(b, &k, sender), true)
				if err != nil || slices.Contains(inNoTest, want.Reason) || !about(&k) {
					continue
				}
				if result.Result == TestError || result.Result == TestPass && want.Access != test.Expect.String() {
					t.Fatalf("seed %d: %+v: %+v; verify says of %v %+v", seed, test, result, k, want)
				}
			}
		}
	}
	if passed < policies || failed < policies || excepted < policies {
		t.Errorf("%d tests held, %d did not, %d packets were excepted: the test says little", passed, failed, excepted)
	}
}

func TestServicesOf(t *testing.T) {
	https := []ruleset.PortRange{{First: 443, Last: 443}}
	tests := []struct {
		name             string
		protocols, ports []string
		want             []analysis.Service
		fault            string
	}{
		{"nothing is every packet", nil, nil, nil, ""},
		{"a star is every packet", []string{"*"}, nil, nil, ""},
		{"a number is a port of TCP and UDP", nil, []string{"443"}, []analysis.Service{{Protocol: packet.ProtoTCP, Ports: https}, {Protocol: packet.ProtoUDP, Ports: https}}, ""},
		{"a service has its protocols", nil, []string{"https"}, []analysis.Service{{Protocol: packet.ProtoTCP, Ports: https}}, ""},
		{"neighbouring ports are one range", []string{"TCP"}, []string{"81", "80", "79-80", "443"}, []analysis.Service{{Protocol: packet.ProtoTCP, Ports: []ruleset.PortRange{{First: 79, Last: 81}, {First: 443, Last: 443}}}}, ""},
		{"ICMP is that of both families", []string{"icmp"}, nil, []analysis.Service{{Protocol: packet.ProtoICMP}, {Protocol: packet.ProtoICMPv6}}, ""},
		{"so is its number", []string{"58"}, nil, []analysis.Service{{Protocol: packet.ProtoICMP}, {Protocol: packet.ProtoICMPv6}}, ""},
		{"rules name no other number", []string{"47"}, nil, []analysis.Service{{Protocol: analysis.OtherProtocols}}, ""},
		{"ESP has no ports", []string{"ESP"}, []string{"1"}, nil, "protocol ESP has no ports"},
		{"a star has no ports", []string{"*"}, []string{"1"}, nil, `protocol "*" has no ports`},
		{"a protocol that there is not", []string{"GREE"}, nil, nil, `protocol "GREE"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ServicesOf(tt.protocols, tt.ports)
			if err != nil {
				if tt.fault == "" || !strings.HasPrefix(err.Error(), tt.fault) {
					t.Error(err)
				}
				return
			}
			if tt.fault != "" || !slices.EqualFunc(got, tt.want, sameService) || (got == nil) != (tt.want == nil) {
				t.Errorf("%+v, want %+v %s", got, tt.want, tt.fault)
			}
		})
	}
}
