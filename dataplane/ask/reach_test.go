package ask

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
)

// meansAddress reports whether a text of reach stands for an address.
func meansAddress(t *testing.T, b *Between, text string, a netip.Addr) bool {
	t.Helper()
	owners := b.snapshot.SendersFrom(a)
	is := func(kind topology.Kind) bool {
		return slices.ContainsFunc(owners, func(e *topology.Endpoint) bool { return b.snapshot.KindOf(e) == kind })
	}
	switch text {
	case "anybody":
		return true
	case "platform":
		return is(topology.Platform)
	case "internet":
		return is(topology.Internet)
	}
	if name, rest := strings.CutPrefix(text, "rest of "); rest {
		return is(topology.Subnet) && meansAddress(t, b, "subnet:"+name, a)
	}
	if strings.Contains(text, "-") {
		if first, last, ok := strings.Cut(text, "-"); ok {
			if low, err := netip.ParseAddr(first); err == nil {
				return low.Is4() == a.Is4() && low.Compare(a) <= 0 && a.Compare(netip.MustParseAddr(last)) <= 0
			}
		}
	}
	end, err := b.End(text)
	if err != nil {
		t.Fatal(err)
	}
	return end.addresses.Contains(a) && (!strings.HasPrefix(text, "tag:") || is(topology.Internet))
}

// The rows of reach say what the sets between everybody and everybody say, whatever joins them.
func TestReachSaysWhatTheSetsSay(t *testing.T) {
	policies, allowed, refused := worldsOf(40, 10), 0, 0
	for seed := range uint64(policies) {
		s := randomPolicies(t, seed)[0]
		b := NewBetween(s, 0)
		sets, err := b.Ask(Everybody(), Everybody(), nil)
		if err != nil {
			t.Fatal(err)
		}
		result, err := Reach(t.Context(), s, &ReachParameters{})
		if err != nil || len(result.Undecided) > 0 {
			t.Fatalf("seed %d: %v, %+v", seed, err, result)
		}
		r := rand.New(rand.NewPCG(seed, 7))
		for range 200 {
			from, to, ok := randomPair(r, s)
			if !ok || len(s.SendersFrom(to)) != 1 {
				continue
			}
			k := packetBetween(r, from, to)
			if k.Proto == packet.ProtoICMP != k.Src.Is4() && (k.Proto == packet.ProtoICMP || k.Proto == packet.ProtoICMPv6) {
				continue // begins no flow
			}
			want := slices.ContainsFunc(sets.Sets, func(p PathSet) bool { return p.Access == ruleset.Allow.String() && p.holds(&k) })
			got := slices.ContainsFunc(result.Allowed, func(o Reached) bool { return o.has(t, b, &k) })
			if got != want {
				t.Fatalf("seed %d: %v (ports %d, %d): reach says %v, want %v: %+v", seed, k, k.SrcPort, k.DstPort, got, want, result.Allowed)
			}
			if want {
				allowed++
			} else {
				refused++
			}
		}
	}
	if allowed < policies || refused < policies {
		t.Errorf("%d packets pass and %d do not: the test says little", allowed, refused)
	}
}

func (r *Reached) has(t *testing.T, b *Between, k *packet.Tuple) bool {
	t.Helper()
	in := func(list []string, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(text string) bool { return meansAddress(t, b, text, a) })
	}
	if r.IPVersion != "" && (r.IPVersion == "IPv4") != k.Src.Is4() || !in(r.From, k.Src.Netip()) || !in(r.To, k.Dst.Netip()) {
		return false
	}
	named := packet.ProtocolName(k.Proto)
	if k.Proto == packet.ProtoGRE {
		named = "other"
	}
	if r.Protocol == "*" {
		return true
	}
	ports := r.SourcePorts == nil || inNumbers(r.SourcePorts, k.SrcPort)
	return r.Protocol == named && ports && (len(r.Ports) == 0 || inNumbers(r.Ports, k.DstPort))
}

func TestTargetsAreReadAsPeopleWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"web":                    "web []",
		"web:443":                "web [6 443 17 443]",
		"web:https":              "web [6 443]",
		"web:https/udp":          "web [17 443]",
		"web:dns":                "web [6 53 17 53]",
		"nic:web:80,8000-8080":   "nic:web [6 80 6 8000-8080 17 80 17 8000-8080]",
		"nic:ssh":                "nic:ssh []",
		"web/icmp":               "web [1 58]",
		"10.0.0.0/24:22/tcp":     "10.0.0.0/24 [6 22]",
		"10.0.0.0/24":            "10.0.0.0/24 []",
		"2001:db8::1":            "2001:db8::1 []",
		"[2001:db8::1]:443/tcp":  "2001:db8::1 [6 443]",
		"subnet:vnet1/web:1433":  "subnet:vnet1/web [6 1433 17 1433]",
		"web:70000":              "error",
		"web:nosuchservice":      "error",
		"web:443/icmp":           "error",
		":443":                   "error",
		"web:":                   "error",
		"web:/tcp":               "error",
		"[2001:db8::1]:":         "error",
		"2001:db8::/tcp":         "2001:db8:: [6]",
		"web:9-8":                "error",
		"tag:Storage.WestEurope": "tag:Storage.WestEurope []",
	} {
		got := "error"
		if target, err := ParseTarget(text); err == nil {
			var services []string
			for _, s := range target.Services {
				if s.Ports == nil {
					services = append(services, packetNumber(s.Protocol))
				}
				for _, p := range s.Ports {
					services = append(services, packetNumber(s.Protocol)+" "+p.String())
				}
			}
			got = target.End + " [" + strings.Join(services, " ") + "]"
		}
		if got != want {
			t.Errorf("%q is read as %s, want %s", text, got, want)
		}
	}
}

func packetNumber(protocol uint8) string {
	return map[uint8]string{1: "1", 6: "6", 17: "17", 58: "58"}[protocol]
}
