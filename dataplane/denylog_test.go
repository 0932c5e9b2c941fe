package dataplane

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/denylog"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

// lines takes each line of a log.
type lines chan map[string]any

func (l lines) Write(b []byte) (int, error) {
	line := map[string]any{}
	err := json.Unmarshal(b, &line)
	delete(line, "time")
	l <- line
	return len(b), err
}

func (l lines) next(t *testing.T) map[string]any {
	t.Helper()
	select {
	case line := <-l:
		return line
	case <-time.After(30 * time.Second):
		t.Fatal("no more lines")
		return nil
	}
}

// logDenied runs the log until the test ends; what is denied from now on is seen.
func logDenied(t *testing.T, perSecond int) (*rig, lines) {
	t.Helper()
	l := make(lines, 4096)
	r := newRigWith(t, figureOfTheSeed(), Options{Flows: conntrack.Options{Max: 1024}, Log: slog.New(slog.NewJSONHandler(l, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- denylog.Run(ctx, r.engine, r.engine.log, perSecond) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the log watches", func() bool { return r.engine.watchers.Now() != nil })
	return r, l
}

func TestADeniedPacketsLineSaysWhoToWhomAndWhichRule(t *testing.T) {
	r, l := logDenied(t, denylog.MaxPerSecond)
	for _, tt := range []struct {
		name   string
		from   int
		packet []byte
		want   map[string]any // nil: no line
	}{
		{"TCP from the internet", internet, syn(world, addr1, 22), map[string]any{
			"from": "internet", "to": "vm1-nic", "protocol": "TCP", "source": world + ":40000", "destination": addr1 + ":22",
			"networkSecurityGroup": "NSG1", "direction": "Inbound", "rule": "DenyAllInBound"}},
		{"a packet that is allowed", internet, syn(world, addr2, 80), nil},
		{"a packet that no rule denies", vm2, syn(addr1, addr4, 22), nil},
		{"ICMP, which has no ports", internet, packettest.ICMP(packettest.Spec{Src: world, Dst: addr2, ICMPType: 8, ICMPID: 7}), map[string]any{
			"from": "internet", "to": "vm2-nic", "protocol": "ICMP", "source": world, "destination": addr2,
			"networkSecurityGroup": "NSG1", "direction": "Inbound", "rule": "DenyAllInBound"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.t = t
			r.send(tt.from, tt.packet)
			if tt.want == nil {
				return // the next line is the next packet's
			}
			tt.want["level"], tt.want["msg"] = "INFO", "denied"
			if diff := cmp.Diff(tt.want, l.next(t)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestEveryDeniedPacketIsShownOrCounted(t *testing.T) {
	r, l := logDenied(t, 1)
	const sent = 500
	for i := range sent {
		r.send(internet, syn(world, addr1, uint16(1000+i)))
	}
	shown, notShown := 0, 0
	for shown+notShown < sent {
		line := l.next(t)
		if line["msg"] == "denied" {
			shown++
		}
		if n, ok := line["notShown"].(float64); ok {
			notShown += int(n)
		}
	}
	if shown == 0 || shown+notShown != sent || len(l) != 0 {
		t.Errorf("%d shown, %d not, of %d", shown, notShown, sent)
	}
}
