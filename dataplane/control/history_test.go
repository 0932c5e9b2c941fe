package control_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

func TestDropsAreListedByRuleAndPair(t *testing.T) {
	r := newRememberingRig(t)
	for range 3 {
		r.send(internet, syn(world, "10.0.1.4", 22))
	}
	r.send(internet, syn(world, "10.9.9.9", 22)) // nobody's
	r.send(internet, syn(world, "10.0.1.4", 80)) // allowed
	var list *inspect.DropList
	r.eventually("the drops are summed up", func() bool {
		var err error
		if list, err = r.client.Drops(t.Context(), inspect.DropQuestion{}); err != nil {
			t.Fatal(err)
		}
		return len(list.Pairs) == 2 && list.Pairs[0].Packets == 3
	})
	p := list.Pairs[0]
	if p.Reason != "rule_deny" || p.NetworkSecurityGroup != "NSG1" || p.Direction != "Inbound" || p.RuleName != "defaultSecurityRules/DenyAllInBound" && p.RuleName != "DenyAllInBound" ||
		p.From != "internet" || p.To != "vm1-nic" || p.Protocol != "TCP" || p.Source != world || p.Destination != "10.0.1.4" || p.DestinationPort != 22 || p.Bytes != 120 || p.Segments != 3 {
		t.Errorf("%+v", p)
	}
	if other := list.Pairs[1]; other.Reason == "rule_deny" || other.RuleName != "" || other.Destination != "10.9.9.9" {
		t.Errorf("%+v", other)
	}
	if list.Dropped["rule_deny"] != 3 || list.NotSeen != 0 || list.More != 0 {
		t.Errorf("%+v", list)
	}
	for _, tt := range []struct {
		name, filter string
		want         int
	}{{"the rule", "rule DenyAllInBound", 1}, {"the reason", "reason rule_deny", 1}, {"an attachment", "dst nic vm1-nic", 1}, {"a port", "port 22", 2},
		{"another port", "tcp and not port 22", 0}, {"an address", "host 10.9.9.9", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := r.client.Drops(t.Context(), inspect.DropQuestion{Filter: tt.filter})
			if err != nil || len(list.Pairs) != tt.want || list.Dropped["rule_deny"] != 3 {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
	if list, err := r.client.Drops(t.Context(), inspect.DropQuestion{Limit: 1}); err != nil || len(list.Pairs) != 1 || list.More != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	r.elapsed.Add(int64(2 * time.Hour))
	r.eventually("they are forgotten", func() bool {
		list, err := r.client.Drops(t.Context(), inspect.DropQuestion{Since: time.Minute})
		return err == nil && len(list.Pairs) == 0 && len(list.Dropped) == 0
	})
}

func TestFlowsThatHaveEndedAreListedAndSummedUp(t *testing.T) {
	r := newRememberingRig(t)
	r.send(0, udp("10.0.1.4", "10.0.3.4", 53))
	r.send(0, udp("10.0.1.4", "10.0.3.4", 53))
	r.engine.Flows().Flush()
	var list *inspect.EndedList
	r.eventually("the flow has ended", func() bool {
		var err error
		if list, err = r.client.EndedFlows(t.Context(), inspect.EndedQuestion{}); err != nil {
			t.Fatal(err)
		}
		return len(list.Flows) == 1
	})
	f := list.Flows[0]
	if f.From != "vm1-nic" || f.To != "vm4-nic" || f.Destination != "10.0.3.4" || f.DestinationPort != 53 || f.PacketsSent != 2 || len(f.Rules) != 2 || f.Rules[0].Name != "AllowVnetOutBound" && f.Rules[0].Name != "defaultSecurityRules/AllowVnetOutBound" {
		t.Errorf("%+v", f)
	}
	if len(list.Pairs) != 1 || list.Pairs[0].Flows != 1 || list.Pairs[0].PacketsSent != 2 || list.Pairs[0].To != "vm4-nic" || list.Pairs[0].RuleName != f.Rules[1].Name || list.Missing || list.Truncated {
		t.Errorf("%+v", list)
	}
	for _, tt := range []struct {
		name   string
		filter inspect.FlowFilter
		want   int
	}{{"its NIC", inspect.FlowFilter{NetworkInterface: "vm4-nic"}, 1}, {"another NIC", inspect.FlowFilter{NetworkInterface: "vm2-nic"}, 0},
		{"its address", inspect.FlowFilter{Address: "10.0.3.0/24"}, 1}, {"another protocol", inspect.FlowFilter{Protocol: "TCP"}, 0}} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := r.client.EndedFlows(t.Context(), inspect.EndedQuestion{FlowFilter: tt.filter})
			if err != nil || len(list.Flows) != tt.want || len(list.Pairs) != tt.want {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

func TestFlowsAreFollowedAsTheyBeginAndEnd(t *testing.T) {
	r := newRememberingRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	lines, done := make(chan *inspect.FlowChange, 64), make(chan error, 1)
	go func() {
		done <- r.client.FollowFlows(ctx, inspect.FlowFilter{NetworkInterface: "vm4-nic"}, func(f *inspect.FlowChange) error {
			lines <- f
			return nil
		})
	}()
	if first := <-lines; first.Summary == nil {
		t.Fatalf("the first line is %+v", first)
	}
	r.send(0, udp("10.0.1.4", "10.0.2.5", 53)) // another's
	r.send(0, udp("10.0.1.4", "10.0.3.4", 53))
	r.send(0, udp("10.0.1.4", "10.0.3.4", 53)) // of the live flow
	r.send(internet, syn(world, "10.0.1.4", 22))
	if b := (<-lines).Began; b == nil || b.From != "vm1-nic" || b.To != "vm4-nic" || b.DestinationPort != 53 || len(b.Rules) != 2 {
		t.Errorf("%+v", b)
	}
	r.engine.Flows().Flush()
	if e := (<-lines).Ended; e == nil || e.To != "vm4-nic" || e.PacketsSent != 2 {
		t.Errorf("%+v", e)
	}
	cancel()
	if last := <-lines; last.Summary == nil || last.Summary.Lost != 0 {
		t.Errorf("%+v", last)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.nobodyWatches()
}

func TestRulesCountATimeAlone(t *testing.T) {
	r := newRememberingRig(t)
	hits := func(since time.Duration) (n uint64, w *inspect.Window) {
		list, err := r.client.Rules(t.Context(), inspect.RuleFilter{NetworkSecurityGroup: "NSG1", Since: since})
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range list.Rules {
			if rule.Name == "DenyAllInBound" {
				n = rule.Counters.Hits
			}
		}
		return n, list.Window
	}
	r.send(internet, syn(world, "10.0.1.4", 22))
	r.eventually("the denial is counted", func() bool { n, w := hits(time.Minute); return n == 1 && w != nil })
	r.elapsed.Add(int64(10 * time.Minute))
	r.eventually("its bucket is closed", func() bool { n, _ := hits(time.Minute); return n == 0 })
	r.send(internet, syn(world, "10.0.1.4", 22))
	r.eventually("the second denial is counted", func() bool { n, _ := hits(time.Minute); return n == 1 })
	if n, _ := hits(time.Hour); n != 2 {
		t.Errorf("%d hits within the hour", n)
	}
	if n, w := hits(0); n != 2 || w != nil {
		t.Errorf("%d hits in all, %v", n, w)
	}
}

func TestReloadsAreRemembered(t *testing.T) {
	r := newRememberingRig(t)
	if _, err := r.client.Reload(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	r.replaceIn("nsg1.json", `"priority": 100`, `"priority": 1`)
	if _, err := r.client.Reload(t.Context(), 0); err == nil {
		t.Fatal("a priority of 1 is taken")
	}
	list, err := r.client.Reloads(t.Context())
	if err != nil || len(list.Reloads) != 2 || list.Earlier != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	if last := list.Reloads[0]; !strings.Contains(last.Error, "priority") || last.Generation != 2 || last.ID == "" {
		t.Errorf("%+v", last)
	}
	if first := list.Reloads[1]; first.Error != "" || first.Generation != 2 || !strings.HasPrefix(first.Cause, "user ") {
		t.Errorf("%+v", first)
	}
}

func TestReloadsThatAreRememberedAreBounded(t *testing.T) {
	r := newStoppedRig(t)
	for range inspect.MaxReloads + 3 {
		if _, err := r.service.Reload(inspect.ReloadRequest{Cause: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if list := r.service.ReloadList(); len(list.Reloads) != inspect.MaxReloads || list.Earlier != 3 || list.Reloads[0].Generation != inspect.MaxReloads+4 {
		t.Errorf("%d reloads, %d earlier, generation %d", len(list.Reloads), list.Earlier, list.Reloads[0].Generation)
	}
}

func TestQuestionsAboutThePastThatCanNotBeMetAreRefused(t *testing.T) {
	r := newRememberingRig(t)
	for _, tt := range []struct{ name, filter, want string }{
		{"a source port", "src port 80", "source ports are not remembered"},
		{"a source port behind not", "tcp and not src port 80", "source ports are not remembered"},
		{"what a packet was to a flow", "flow live", "it is not remembered what a packet was to its flow"},
		{"a name that is not there", "nsg NSG9", `there is none of that name: allowed are NSG1, NSG2`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := r.client.Drops(t.Context(), inspect.DropQuestion{Filter: tt.filter})
			var refused *control.Error
			if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
		})
	}
}
