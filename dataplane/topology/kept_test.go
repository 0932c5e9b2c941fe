package topology

import (
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestWhichTranslationsThePolicyKeeps(t *testing.T) {
	const client, server = "198.51.100.7", "198.51.100.80"
	s := streetSnapshot(t, Options{})
	for _, p := range s.Probes() {
		p.Set(p.Target.NetworkInterface.Name != "pool2")
	}
	for _, tt := range []struct {
		name, from, to string
		proto          uint8
		dst            string
		port           uint16
		src            string // of the sender
		seen           string // as source
		seenPort       uint16
		arrives        string
		arrivesPort    uint16
		want           bool
	}{
		{"a public address leads where it led", "internet", "own", 6, "203.0.113.4", 443, client, client, 40000, "10.0.0.4", 443, true},
		{"not to another NIC", "internet", "nat", 6, "203.0.113.4", 443, client, client, 40000, "10.0.1.4", 443, false},
		{"nor to another port", "internet", "own", 6, "203.0.113.4", 443, client, client, 40000, "10.0.0.4", 444, false},
		{"a rule leads to a backend", "internet", "pool1", 6, "203.0.113.6", 80, client, client, 40000, "10.0.4.4", 8080, true},
		{"and to one that is down by now", "internet", "pool2", 6, "203.0.113.6", 80, client, client, 40000, "10.0.4.5", 8080, true},
		{"not by the frontend's port", "internet", "pool1", 6, "203.0.113.6", 80, client, client, 40000, "10.0.4.4", 80, false},
		{"not to a NIC that is no backend", "internet", "own", 6, "203.0.113.6", 80, client, client, 40000, "10.0.0.4", 8080, false},
		{"nor with a backend's address that another NIC has", "internet", "pool2", 6, "203.0.113.6", 80, client, client, 40000, "10.0.4.4", 8080, false},
		{"a floating address stays", "internet", "pool2", 17, "203.0.113.6", 53, client, client, 40000, "203.0.113.6", 53, true},
		{"and is not rewritten", "internet", "pool2", 17, "203.0.113.6", 53, client, client, 40000, "10.0.4.5", 53, false},
		{"a frontend without the rule", "internet", "pool1", 6, "203.0.113.6", 443, client, client, 40000, "10.0.4.4", 443, false},
		{"an own address as source", "own", "internet", 6, server, 443, "10.0.0.4", "203.0.113.4", 40000, server, 443, true},
		{"not another one", "own", "internet", 6, server, 443, "10.0.0.4", "203.0.113.5", 40000, server, 443, false},
		{"nor another port of it", "own", "internet", 6, server, 443, "10.0.0.4", "203.0.113.4", 40001, server, 443, false},
		{"a NAT gateway's address and port", "nat", "internet", 6, server, 443, "10.0.1.4", "203.0.113.33", 1024, server, 443, true},
		{"not a port that it does not give", "nat", "internet", 6, server, 443, "10.0.1.4", "203.0.113.33", 1023, server, 443, false},
		{"nor another address", "nat", "internet", 6, server, 443, "10.0.1.4", "203.0.113.34", 1024, server, 443, false},
		{"without a translation the same packet", "own", "plain", 6, "10.0.3.4", 443, "10.0.0.4", "10.0.0.4", 40000, "10.0.3.4", 443, true},
		{"not one to another place", "own", "nat", 6, "10.0.3.4", 443, "10.0.0.4", "10.0.0.4", 40000, "10.0.3.4", 443, false},
		{"no way out", "shut", "internet", 6, server, 443, "10.0.2.4", "10.0.2.4", 40000, server, 443, false},
	} {
		sent := tuple(t, tt.proto, tt.src, 40000, tt.dst, tt.port)
		arrives := packet.Tuple{Src: ip(tt.seen), SrcPort: tt.seenPort, Dst: ip(tt.arrives), DstPort: tt.arrivesPort, Proto: tt.proto}
		to := s.outside
		for _, a := range s.Attachments {
			if a.Name == tt.to && a.Kind == NetworkInterface {
				to = a.endpoints[0]
			}
		}
		if got := s.KeepsTranslation(s.from(t, tt.from, sent.Src), to, &sent, &arrives); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// A backend that nothing is attached to drops what reaches it.
func TestABackendWithoutAnAttachmentHasNoRoute(t *testing.T) {
	var specs []Spec
	for _, spec := range streetSpecs() {
		if spec.Reference != "pool1" && spec.Reference != "pool2" && spec.Reference != "own" {
			specs = append(specs, spec)
		}
	}
	s, err := Build(streetPolicy(t), specs, NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range []string{"203.0.113.4", "203.0.113.6"} {
		p := tuple(t, packet.ProtoTCP, "198.51.100.7", 40000, dst, 80)
		var w Way
		if drop := s.Way(s.outside, &p, &w); drop != packet.DropNoRoute || w.To == nil {
			t.Errorf("%s: %s", dst, drop)
		}
	}
}
