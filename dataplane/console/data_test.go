package console

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/tun"
)

// events are those of a stream, until the test ends.
func (r *rig) events(path string) (next func(event string, into any)) {
	r.Helper()
	server := httptest.NewServer(r.Console)
	ctx, cancel := context.WithCancel(context.Background())
	r.Cleanup(func() { cancel(); server.Close() })
	q, err := http.NewRequestWithContext(ctx, "GET", server.URL+Path+"events/"+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	answer, err := server.Client().Do(q)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { answer.Body.Close() })
	lines := bufio.NewReader(answer.Body)
	return func(event string, into any) {
		r.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				r.Fatalf("%s: %v", path, err)
			}
			if strings.TrimSpace(line) != "event: "+event {
				continue
			}
			if line, err = lines.ReadString('\n'); err == nil {
				err = json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), into)
			}
			if err != nil {
				r.Fatalf("%s: %v: %s", path, err, line)
			}
			return
		}
	}
}

func TestTheMapHasTheTrafficWithItsRules(t *testing.T) {
	r := newRig(t)
	r.send(internet, "203.0.113.10", "10.0.1.4", 80)
	r.send(internet, "203.0.113.10", "10.0.1.4", 8080)
	r.send(3, "10.0.3.4", "10.0.2.4", 8080)
	next := r.events("map")
	var m inspect.Map
	next("map", &m)
	var found []string
	r.eventually("the map has three edges", func() bool {
		var traffic inspect.MapTraffic
		next("traffic", &traffic)
		found = nil
		for _, e := range traffic.Edges {
			found = append(found, fmt.Sprintf("%s %s to %s by %s/%s: %s:%d", e.Access, m.Nodes[e.From].Name, m.Nodes[e.To].Name, e.Rule.NetworkSecurityGroup, e.Rule.Name, e.Example.Destination, e.Example.DestinationPort))
		}
		return len(found) == 3
	})
	slices.Sort(found)
	want := []string{
		"Allow internet to vm1-nic by NSG2/AllowHttpInBound: 10.0.1.4:80", "Allow vm4-nic to vm3-nic by NSG2/AllowVnetInBound: 10.0.2.4:8080",
		"Deny internet to vm1-nic by NSG1/DenyAllInBound: 10.0.1.4:8080",
	}
	if !slices.Equal(found, want) {
		t.Errorf("%q, want %q", found, want)
	}
	parents := map[string]string{}
	for _, n := range m.Nodes {
		if n.Parent >= 0 {
			parents[n.Name] = m.Nodes[n.Parent].Name
		}
	}
	if parents["vm1-nic"] != "vnet1/Subnet1" || parents["vnet1/Subnet1"] != "vnet1" || parents["vm4-nic"] != "vnet1/Subnet3" {
		t.Errorf("%v", parents)
	}
}

func TestTheMapHasLoadBalancersAndGateways(t *testing.T) {
	const outside, gateway = 2, 3
	r := newRigOf(t, "../../deploy/lab/translation", []topology.Spec{
		{Kind: topology.NetworkInterface, Reference: "web1-nic"}, {Kind: topology.NetworkInterface, Reference: "web2-nic"}, {Kind: topology.Internet},
		{Kind: topology.Gateway, Reference: "shop", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}},
	})
	r.send(outside, "203.0.113.10", "198.51.100.10", 80)
	r.send(gateway, "192.168.1.1", "10.1.1.4", 80)
	next := r.events("map")
	var m inspect.Map
	next("map", &m)
	var traffic inspect.MapTraffic
	next("traffic", &traffic)
	var balanced, fromOutside, onPremises bool
	for _, n := range m.Nodes {
		balanced = balanced || n.Kind == "loadBalancer" && n.Name == "shop-lb" && n.Addresses[0] == "198.51.100.10" && len(n.Members) == 2 && m.Nodes[n.Members[0]].Name == "web1-nic"
	}
	for _, e := range traffic.Edges {
		fromOutside = fromOutside || e.Access == "Allow" && e.Via >= 0 && m.Nodes[e.Via].Name == "shop-lb" && strings.HasPrefix(m.Nodes[e.To].Name, "web")
		onPremises = onPremises || e.Access == "Allow" && m.Nodes[e.From].Kind == "gateway" && m.Nodes[e.To].Name == "web1-nic"
	}
	if !balanced || !fromOutside || !onPremises {
		t.Errorf("balancer %v, through it %v, from the gateway %v: %+v %+v", balanced, fromOutside, onPremises, m.Nodes, traffic.Edges)
	}
}

func TestRulesHaveTheirOrderAndWhatTheyDo(t *testing.T) {
	r := newRig(t)
	r.send(internet, "203.0.113.10", "10.0.1.4", 80)
	next := r.events("rules?networkInterface=vm1-nic")
	var view inspect.RuleView
	next("rules", &view)
	var order []string
	for _, s := range view.Stages {
		order = append(order, s.Direction+" "+s.Association+" "+s.NetworkSecurityGroup)
	}
	if want := "Inbound subnet NSG1,Inbound networkInterface NSG2,Outbound networkInterface NSG2,Outbound subnet NSG1"; strings.Join(order, ",") != want {
		t.Errorf("%q, want %s", order, want)
	}
	hit, never := view.Stages[0].Rules[0], view.Stages[0].Rules[1]
	if hit.Name != "AllowHttpInBound" || hit.Counters.Hits != 1 || hit.LastHit == nil || len(hit.Activity) != inspect.ActivityParts || hit.Activity[inspect.ActivityParts-1] != 1 {
		t.Errorf("%+v", hit)
	}
	if never.Counters.Hits != 0 || never.LastHit != nil || never.Activity != nil {
		t.Errorf("%+v", never)
	}
}

func TestPacketsAreWatchedOnceForAllWhoLook(t *testing.T) {
	r := newRig(t)
	type packets struct {
		Missed  int
		Packets []inspect.Trace
	}
	first, second := r.events("packets?kind=denied"), r.events("packets?kind=denied")
	var begun packets
	first("packets", &begun)
	second("packets", &begun)
	r.taps.mu.Lock()
	if len(r.taps.all) != 1 {
		t.Errorf("%d subscriptions", len(r.taps.all))
	}
	r.taps.mu.Unlock()
	r.send(internet, "203.0.113.10", "10.0.1.4", 80) // is carried
	r.send(internet, "203.0.113.10", "10.0.1.4", 8080)
	for _, next := range []func(string, any){first, second} {
		var p *inspect.TracedPacket
		for p == nil {
			var got packets
			next("packets", &got)
			for _, line := range got.Packets {
				if line.Packet != nil {
					p = line.Packet
					break
				}
			}
		}
		if p.DestinationPort != 8080 || p.Access != "Deny" || p.Stages[0].NetworkSecurityGroup != "NSG1" {
			t.Errorf("%+v", p)
		}
	}
}

// Nothing is watched once nobody looks.
func TestATapEndsWithItsLastClient(t *testing.T) {
	r := newRig(t)
	k := tapKey{kind: "denied"}
	one, err := r.taps.enter(k)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.taps.enter(k); again != one || err != nil {
		t.Errorf("%p, %v, want %p", again, err, one)
	}
	for range maxTaps - 1 {
		k.filter += " "
		if _, err := r.taps.enter(k); err != nil {
			t.Fatal(err)
		}
	}
	k.filter += " "
	if _, err := r.taps.enter(k); err == nil {
		t.Errorf("%d taps and one more", maxTaps)
	}
	k.filter = ""
	r.taps.leave(k, one)
	r.taps.leave(k, one)
	r.eventually("the subscription ends", func() bool {
		one.mu.Lock()
		defer one.mu.Unlock()
		return errors.Is(one.err, context.Canceled)
	})
	if again, err := r.taps.enter(k); again == one || err != nil {
		t.Errorf("the tap that ended, %v", err)
	}
}

// Who reads too late is told how much it has missed, and holds nobody up.
func TestASlowClientIsToldWhatItMissed(t *testing.T) {
	one := &tap{changed: make(chan struct{})}
	at := one.position()
	for n := range tapKeep + 10 {
		one.add([][]byte{fmt.Append(nil, n)})
	}
	lines, missed, _, err := one.since(&at)
	if len(lines) != tapKeep || missed != 10 || err != nil || string(lines[0]) != "10" {
		t.Errorf("%d lines, %d missed, %v", len(lines), missed, err)
	}
	if lines, missed, _, _ := one.since(&at); len(lines) != 0 || missed != 0 {
		t.Errorf("again %d lines, %d missed", len(lines), missed)
	}
}

func TestAnAnswerIsMadeOnceForAllAndNotTooOften(t *testing.T) {
	now, made := time.Unix(1_800_000_000, 0), 0
	a := answers{now: func() time.Time { return now }}
	ask := func(took time.Duration) {
		body, err := a.get("x", time.Second, func() (any, error) { made++; now = now.Add(took); return made, nil })
		if want := fmt.Sprint(made); string(body) != want || err != nil {
			t.Errorf("%s, %v, want %s", body, err, want)
		}
	}
	ask(0)
	ask(0)
	if made != 1 {
		t.Errorf("made %d times at once", made)
	}
	now = now.Add(time.Second)
	ask(time.Second) // is dear
	now = now.Add((share - 2) * time.Second)
	ask(0)
	if made != 2 {
		t.Errorf("made %d times, want 2: an answer takes a %dth of the time at most", made, share)
	}
	now = now.Add(time.Second)
	if ask(0); made != 3 {
		t.Errorf("made %d times", made)
	}
	for n := range 2 * maxAnswers {
		a.get(fmt.Sprint(n), time.Second, func() (any, error) { return n, nil })
	}
	if len(a.all) > maxAnswers {
		t.Errorf("%d answers are remembered", len(a.all))
	}
}

func TestGenerationsAndTheCandidateAreCompared(t *testing.T) {
	r := newRig(t)
	r.send(internet, "203.0.113.10", "10.0.1.4", 80)
	replaceIn(t, r.policy+"/nsg1.json", `"access": "Allow"`, `"access": "Deny"`)
	if _, err := r.service.StartCandidate(&inspect.CandidateQuestion{Policy: []string{r.policy}}, "test"); err != nil {
		t.Fatal(err)
	}
	next := r.events("change")
	var now change
	next("change", &now)
	if now.Candidate == nil || now.Candidate.LiveFlows.Cut != 1 || !slices.Equal(now.Generations, []uint64{1}) {
		t.Errorf("%+v", now)
	}
	if cuts := decoded[inspect.LiveFlows](r, "cuts"); cuts.Cut != 1 || cuts.List[0].NetworkSecurityGroup != "NSG1" {
		t.Errorf("%+v", cuts)
	}
	denied := func(old, new string) {
		t.Helper()
		d := decoded[inspect.RunningDiff](r, "compare?old="+old+"&new="+new)
		if len(d.Changes) != 2 || d.Changes[0].Kind != "denied" || d.Changes[0].New.RuleName != "securityRules/AllowHttpInBound" {
			t.Errorf("%s and %s: %+v", old, new, d.Changes)
		}
	}
	denied("1", "candidate")
	if _, err := r.service.PromoteCandidate(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	denied("1", "2")
	for range 3 {
		if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.service.Generations(); !slices.Equal(got, []uint64{5, 4, 3}) {
		t.Errorf("%d are kept", got)
	}
}

func TestLintAndFlowsAndDrops(t *testing.T) {
	r := newRig(t)
	r.send(internet, "203.0.113.10", "10.0.1.4", 80)
	r.send(internet, "203.0.113.10", "10.0.1.4", 8080)
	for filter, want := range map[string]int{"": 1, "dst+port+80": 1, "port+81": 0, "nsg+NSG1+and+src+nic+internet": 1, "verdict+deny": 0} {
		if f := decoded[inspect.RatedFlows](r, "flows?filter="+filter); f.Matching != want || len(f.Flows) != want {
			t.Errorf("%s: %+v", filter, f)
		}
	}
	r.eventually("the drop is remembered", func() bool {
		return len(decoded[inspect.DropList](r, "drops?since=1m&filter=dst+host+10.0.1.4").Pairs) == 1
	})
	if l := decoded[inspect.Linted](r, "lint"); l.Generation != 1 || l.Findings == nil {
		t.Errorf("%+v", l)
	}
	x := decoded[inspect.Explained](r, "explain?from=203.0.113.10&to=10.0.1.4:8080/tcp")
	if len(x.Paths) != 1 || x.Paths[0].Access != "Deny" || x.Paths[0].Nearest == nil || x.Paths[0].Nearest.RuleName != "securityRules/AllowHttpInBound" {
		t.Errorf("%+v", x)
	}
}

// Who looks gets no payload.
func TestACaptureHasHeadersAlone(t *testing.T) {
	r := newRig(t)
	server := httptest.NewServer(r.Console)
	defer server.Close()
	answered := make(chan *http.Response, 1)
	go func() {
		answer, err := server.Client().Get(server.URL + Path + "data/capture?count=1&seconds=20&filter=dst+port+8080")
		if err != nil {
			t.Error(err)
		}
		answered <- answer
	}()
	answer := <-answered
	defer answer.Body.Close()
	const secret = "nobody's business"
	p := packettest.UDP(packettest.Spec{Src: "203.0.113.10", Dst: "10.0.1.4", SrcPort: 40000, DstPort: 8080, Payload: len(secret)})
	copy(p[len(p)-len(secret):], secret)
	if !r.devices[internet].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		t.Fatal("memory device is full")
	}
	file, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if headers := p[:len(p)-len(secret)]; !bytes.Contains(file, headers) || bytes.Contains(file, []byte(secret)) || !bytes.Contains(file, []byte("verdict=Deny nsg=NSG1")) {
		t.Errorf("%q", file)
	}
}
