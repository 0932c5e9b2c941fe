package platform

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/ruleset/policy"
	"golang.org/x/net/dns/dnsmessage"
)

const machines = "/subscriptions/s/resourceGroups/shop/providers/Microsoft.Compute/virtualMachines/"

// aPolicy has the machines web (two NICs) and db in one network, and another machine db in another one. Both networks
// have 10.0.0.9.
func aPolicy() *policy.Set {
	network := func(name, ipv4 string) *policy.Subnet {
		p := netip.MustParsePrefix(ipv4)
		return &policy.Subnet{Prefixes: []netip.Prefix{p}, VirtualNetwork: &policy.VirtualNetwork{Name: name, AddressSpace: []netip.Prefix{p}}}
	}
	nic := func(s *policy.Subnet, name, machine string, addresses ...string) *policy.NetworkInterface {
		n := &policy.NetworkInterface{Name: name, ID: "/subscriptions/s/resourceGroups/nics/providers/Microsoft.Network/networkInterfaces/" + name, MACAddress: "00-0d-3a-f8-06-ec", DomainNameSuffix: "abc.ax.internal.cloudapp.net"}
		if machine != "" {
			n.VirtualMachineID = machines + machine
		}
		for i, a := range addresses {
			n.IPConfigurations = append(n.IPConfigurations, policy.IPConfiguration{Address: netip.MustParseAddr(a), Subnet: s, Primary: i == 0})
		}
		return n
	}
	one, two := network("one", "10.0.0.0/24"), network("two", "10.0.0.0/23")
	web := nic(one, "web-nic", "Web", "10.0.0.4", "10.0.0.5", "fd00::4")
	web.IPConfigurations[0].PublicIPAddress = &policy.PublicIPAddress{Address: netip.MustParseAddr("20.1.2.3")}
	return &policy.Set{NetworkInterfaces: []*policy.NetworkInterface{
		web, nic(one, "web-nic2", "web", "10.0.0.6"), nic(one, "db-nic", "", "10.0.0.7"),
		nic(two, "db-nic", "", "10.0.1.7"), nic(one, "a-nic", "", "10.0.0.9"), nic(two, "b-nic", "", "10.0.0.9"),
	}}
}

func servicesOf(set *policy.Set, forwarders ...netip.AddrPort) *services {
	return newServices(Options{Policy: func() *policy.Set { return set }, Forwarders: forwarders})
}

func question(t *testing.T, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// told is an answer in words.
func told(t *testing.T, answer []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil || m.ID != 77 || !m.Response || len(m.Questions) != 1 {
		t.Fatalf("% x: %v", answer, err)
	}
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			words = append(words, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			words = append(words, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			words = append(words, b.PTR.String())
		}
	}
	return strings.Join(words, " ")
}

func TestDNSAnswersWithinTheAskersNetwork(t *testing.T) {
	s := servicesOf(aPolicy())
	const a, aaaa, ptr = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR
	for _, tt := range []struct {
		name, from, asked string
		kind              dnsmessage.Type
		want              string
	}{
		{"the bare name of a machine means the primary address of each NIC", "10.0.0.7", "WEB.", a, "Success 10.0.0.4 10.0.0.6"},
		{"Azure's internal domain", "10.0.0.7", "web.internal.cloudapp.net.", a, "Success 10.0.0.4 10.0.0.6"},
		{"the network's own suffix", "10.0.0.7", "web.abc.ax.internal.cloudapp.net.", aaaa, "Success fd00::4"},
		{"another network's suffix", "10.0.0.7", "web.xyz.ax.internal.cloudapp.net.", a, "NameError"},
		{"a family that the machine lacks", "10.0.0.4", "db.", aaaa, "Success"},
		{"a name that two networks have", "10.0.0.4", "db.", a, "Success 10.0.0.7"},
		{"the same from the other network", "10.0.1.7", "db.", a, "Success 10.0.1.7"},
		{"a machine of another network", "10.0.1.7", "web.", a, "NameError"},
		{"a name outside", "10.0.0.4", "nobody.example.", a, "NameError"},
		{"an address of a machine", "10.0.0.7", "4.0.0.10.in-addr.arpa.", ptr, "Success web.internal.cloudapp.net."},
		{"an address of another network's machine", "10.0.0.7", "7.1.0.10.in-addr.arpa.", ptr, "NameError"},
		{"an address that is none", "10.0.0.7", "999.0.0.10.in-addr.arpa.", ptr, "NameError"},
		{"who asks is nobody", "10.0.0.200", "web.", a, "Refused"},
		{"who asks may be two", "10.0.0.9", "web.", a, "Refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer, forward := s.answer(question(t, tt.asked, tt.kind), netip.MustParseAddr(tt.from))
			if got := told(t, answer); got != tt.want || forward {
				t.Errorf("%s, forwarded %t; want %s", got, forward, tt.want)
			}
		})
	}
	for name, query := range map[string][]byte{"nothing": nil, "an answer": {0, 77, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}, "no question": make([]byte, 12),
		"more than a query": append(question(t, "web.", a), make([]byte, maxQuery)...)} {
		if answer, forward := s.answer(query, netip.MustParseAddr("10.0.0.4")); answer != nil || forward {
			t.Errorf("%s: answered % x", name, answer)
		}
	}
}

func TestOnlyNamesThatAreNotInternalAreForwarded(t *testing.T) {
	first, second := netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("192.0.2.2:53")
	s := servicesOf(aPolicy(), first, second)
	from := netip.MustParseAddr("10.0.0.4")
	for asked, want := range map[string]bool{"example.com.": true, "internal.cloudapp.net.example.": true, "nobody.": false, "nobody.internal.cloudapp.net.": false,
		"nobody.abc.internal.cloudapp.net.": false, "200.0.0.10.in-addr.arpa.": false, "8.8.8.8.in-addr.arpa.": true} {
		if _, forward := s.answer(question(t, asked, dnsmessage.TypeA), from); forward != want {
			t.Errorf("%s: forwarded %t", asked, forward)
		}
	}
	reply := func(query []byte, name string) []byte {
		h, q, _ := parse(query)
		q.Name = dnsmessage.MustNewName(name)
		return reply(&h, &q, dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 9}})
	}
	query := question(t, "example.com.", dnsmessage.TypeA)
	for _, tt := range []struct {
		name    string
		answers func(to netip.AddrPort, query []byte) ([]byte, error)
		want    string
	}{
		{"the first that answers", func(_ netip.AddrPort, q []byte) ([]byte, error) { return reply(q, "example.com."), nil }, "Success 192.0.2.9"},
		{"the second, when the first is silent", func(to netip.AddrPort, q []byte) ([]byte, error) {
			if to == first {
				return nil, errors.New("silent")
			}
			return reply(q, "example.com."), nil
		}, "Success 192.0.2.9"},
		{"an answer to another question", func(_ netip.AddrPort, q []byte) ([]byte, error) { return reply(q, "example.org."), nil }, "ServerFailure"},
		{"an answer with the asker's identifier", func(_ netip.AddrPort, q []byte) ([]byte, error) {
			forged := reply(q, "example.com.")
			forged[0], forged[1] = q[0]+1, q[1]
			return forged, nil
		}, "ServerFailure"},
		{"no message", func(netip.AddrPort, []byte) ([]byte, error) { return []byte{1}, nil }, "ServerFailure"},
	} {
		s.query = func(_ context.Context, _ string, to netip.AddrPort, q []byte) ([]byte, error) {
			return tt.answers(to, q)
		}
		if got := told(t, s.forward(t.Context(), "udp", query)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAForwarderIsAskedOverBothProtocols(t *testing.T) {
	server := servicesOf(&policy.Set{NetworkInterfaces: []*policy.NetworkInterface{{Name: "example", IPConfigurations: []policy.IPConfiguration{
		{Address: netip.MustParseAddr("127.0.0.1"), Primary: true, Subnet: &policy.Subnet{VirtualNetwork: &policy.VirtualNetwork{}}}}}}})
	datagrams, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	go func() { server.datagrams(ctx, datagrams); ended <- struct{}{} }()
	go func() { server.streams(ctx, streams); ended <- struct{}{} }()
	for network, to := range map[string]string{"udp": datagrams.LocalAddr().String(), "tcp": streams.Addr().String()} {
		answer, err := exchange(ctx, network, netip.MustParseAddrPort(to), question(t, "example.", dnsmessage.TypeA))
		if err != nil || told(t, answer) != "Success 127.0.0.1" {
			t.Errorf("%s: % x, %v", network, answer, err)
		}
	}
	cancel()
	datagrams.Close()
	streams.Close()
	<-ended
	<-ended
}

func TestWhatGoesOnAtATimeIsBounded(t *testing.T) {
	var g gate
	one, other := netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.5")
	for range perAsker {
		if !g.enter(one) {
			t.Fatal("there is room")
		}
	}
	if g.enter(one) || !g.enter(other) {
		t.Error("an asker takes more than its share, or another's")
	}
	g.leave(one)
	if !g.enter(one) {
		t.Error("what was given back isn't there")
	}
	g = gate{}
	entered := 0
	for i := range 2 * connections {
		if g.enter(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})) {
			entered++
		}
	}
	if entered != connections {
		t.Errorf("%d enter, want %d", entered, connections)
	}
}

func TestIMDSDescribesWhoAsks(t *testing.T) {
	set := aPolicy()
	newDirectory(set).byAddress[netip.MustParseAddr("10.0.0.7")].MACAddress = ""
	s := servicesOf(set)
	s.options.MAC = func(*policy.NetworkInterface) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 0xab} }
	const path = "/metadata/instance?api-version=2021-02-01"
	for _, tt := range []struct {
		name, from, path string
		change           func(*http.Request)
		status           int
		want             []string // in the body
	}{
		{"a machine with two NICs", "10.0.0.4", path, nil, 200, []string{`"name":"Web"`, `"resourceGroupName":"shop"`, `"privateIpAddress":"10.0.0.4"`, `"publicIpAddress":"20.1.2.3"`,
			`"privateIpAddress":"10.0.0.6"`, `"subnet":[{"address":"10.0.0.0","prefix":"24"}]`, `"macAddress":"000D3AF806EC"`}},
		{"a NIC without a machine", "10.0.0.7", path, nil, 200, []string{`"name":"db"`, `"resourceGroupName":"nics"`, `"publicIpAddress":""`, `"macAddress":"0200000000AB"`}},
		{"a part", "10.0.0.7", "/metadata/instance/network/interface/0/ipv4/subnet/?api-version=2021-02-01&format=json", nil, 200, []string{`[{"address":"10.0.0.0","prefix":"24"}]`}},
		{"a value as text", "10.0.0.7", "/metadata/instance/network/interface/0/ipv4/ipAddress/0/privateIpAddress?api-version=2021-02-01&format=text", nil, 200, []string{"10.0.0.7"}},
		{"a value as JSON", "10.0.0.7", "/metadata/instance/compute/name?api-version=2021-02-01", nil, 400, nil},
		{"a part that isn't there", "10.0.0.7", "/metadata/instance/network/interface/7?api-version=2021-02-01", nil, 404, nil},
		{"another path", "10.0.0.7", "/metadata/identity?api-version=2021-02-01", nil, 404, nil},
		{"without the header", "10.0.0.7", path, func(r *http.Request) { r.Header.Del("Metadata") }, 400, []string{"Required metadata header not specified"}},
		{"forwarded", "10.0.0.7", path, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "") }, 400, []string{"forwarded"}},
		{"without a version", "10.0.0.7", "/metadata/instance", nil, 400, []string{"api-version"}},
		{"a version that is none", "10.0.0.7", "/metadata/instance?api-version=latest", nil, 400, []string{"api-version"}},
		{"another method", "10.0.0.7", path, func(r *http.Request) { r.Method = http.MethodPost }, 405, nil},
		{"nobody", "10.0.0.200", path, nil, 404, nil},
		{"one of two", "10.0.0.9", path, nil, 404, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.RemoteAddr = tt.from + ":50000"
			r.Header.Set("Metadata", "true")
			if tt.change != nil {
				tt.change(r)
			}
			w := httptest.NewRecorder()
			s.metadata(w, r)
			missing := slices.DeleteFunc(slices.Clone(tt.want), func(want string) bool { return strings.Contains(w.Body.String(), want) })
			if w.Code != tt.status || len(missing) > 0 {
				t.Errorf("%d, want %d; %v is missing in %s", w.Code, tt.status, missing, w.Body.String())
			}
			if w.Code != 200 && !json.Valid(w.Body.Bytes()) {
				t.Errorf("no JSON: %s", w.Body.String())
			}
		})
	}
}

func TestAReloadChangesWhatIsKnown(t *testing.T) {
	set := aPolicy()
	s := newServices(Options{Policy: func() *policy.Set { return set }})
	ask := func() string {
		answer, _ := s.answer(question(t, "db.", dnsmessage.TypeA), netip.MustParseAddr("10.0.0.4"))
		return told(t, answer)
	}
	before := ask()
	next := *set
	next.NetworkInterfaces = next.NetworkInterfaces[:2]
	set = &next
	if got := fmt.Sprint(before, ", ", ask()); got != "Success 10.0.0.7, NameError" {
		t.Error(got)
	}
}

func FuzzAnswer(f *testing.F) {
	s := servicesOf(aPolicy(), netip.MustParseAddrPort("192.0.2.1:53"))
	f.Add([]byte{0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 'w', 'e', 'b', 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, query []byte) {
		answer, _ := s.answer(query, netip.MustParseAddr("10.0.0.4"))
		if len(answer) > 512+len(query) || answer != nil && string(answer[:2]) != string(query[:2]) {
			t.Errorf("% x has the answer % x", query, answer)
		}
	})
}

// TestAPanicAtAQuestionCostsItsAnswer has the policy panic at the first question.
func TestAPanicAtAQuestionCostsItsAnswer(t *testing.T) {
	faults, asked := fault.NewLog(slog.New(slog.DiscardHandler), func() time.Duration { return 0 }), 0
	s := newServices(Options{Faults: faults, Policy: func() *policy.Set {
		if asked++; asked == 1 {
			panic("a fault for a test")
		}
		return aPolicy()
	}})
	query, from := question(t, "web.", dnsmessage.TypeA), netip.MustParseAddr("10.0.0.7")
	if answer, forward := s.answer(query, from); answer != nil || forward {
		t.Errorf("% x", answer)
	}
	if answer, _ := s.answer(query, from); told(t, answer) != "Success 10.0.0.4 10.0.0.6" {
		t.Errorf("% x", answer)
	}
	if n := faults.Counts()[fault.Services]; n != 1 {
		t.Errorf("%d faults", n)
	}
}
