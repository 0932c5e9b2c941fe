package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nsgd/nsgd/dataplane/dhcp"
)

// The interfaces of this test are nowhere: responders only wait for them.
func TestRespondersFollowAReload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var alive sync.WaitGroup
	r := &responders{open: dhcp.Open, log: slog.New(slog.DiscardHandler)}
	attachment := func(more string) string {
		return "{networkInterface: vm1-nic, interface: nsgd-none1, device: nsgd-vm1" + more + "}"
	}
	const second = "{networkInterface: vm2-nic, interface: nsgd-none2, device: nsgd-vm2, dhcp: true}"
	read := func(lines ...string) *Config {
		c, err := parseConfig("nsgd.yaml", []byte("policy: [p]\nattachments:\n- "+strings.Join(lines, "\n- ")+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func() (names string) {
		for _, f := range r.frames() {
			names += f.Interface + " "
		}
		return names
	}
	r.follow(read(attachment(", dhcp: true"), second))
	if got := answered(); got != "" {
		t.Errorf("%s answered before the daemon serves", got)
	}
	r.begin(read(attachment(", dhcp: true")), func(run func(context.Context)) { alive.Go(func() { run(ctx) }) })
	running := func() map[string]*answering {
		byInterface := map[string]*answering{}
		for q, one := range r.running {
			byInterface[q.device] = one
		}
		return byInterface
	}
	before := running()
	for _, tt := range []struct {
		name   string
		config *Config
		want   string
		same   bool // the first one's responder carries on
	}{
		{"nothing changes", read(attachment(", dhcp: true")), "nsgd-none1 ", true},
		{"another comes", read(second, attachment(", dhcp: true")), "nsgd-none1 nsgd-none2 ", true},
		{"another goes", read(attachment(", dhcp: true")), "nsgd-none1 ", true},
		{"it stands for the gateway now", read(attachment(", dhcp: true, defaultGateway: true")), "nsgd-none1 ", false},
		{"it answers one machine alone", read(attachment(", dhcp: true, dhcpClient: '52:54:00:00:00:01'")), "nsgd-none1 ", false},
		{"it answers another machine", read(attachment(", dhcp: true, dhcpClient: '52:54:00:00:00:02'")), "nsgd-none1 ", false},
		{"another NIC is behind it", read(strings.Replace(attachment(", dhcp: true"), "vm1-nic", "vm3-nic", 1)), "nsgd-none1 ", false},
		{"it is off", read(attachment("")), "", false},
	} {
		r.follow(tt.config)
		if got := answered(); got != tt.want {
			t.Errorf("%s: %q answered, want %q", tt.name, got, tt.want)
		}
		now := running()
		if same := now["nsgd-none1"] == before["nsgd-none1"]; same != tt.same {
			t.Errorf("%s: the responder carries on: %t", tt.name, same)
		}
		for name, one := range before {
			select {
			case <-one.ended:
			default:
				if now[name] != one {
					t.Errorf("%s: the responder of %s runs on", tt.name, name)
				}
			}
		}
		before = now
	}
	r.follow(read(second))
	cancel()
	alive.Wait() // a responder ends with the daemon
}
