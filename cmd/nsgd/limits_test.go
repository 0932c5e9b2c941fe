package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/denylog"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/metrics/flowlog"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/tun"
)

// limit is one of the configuration: text makes a configuration of a value, and run gives the
// value to the owner of the limit.
type limit struct {
	name           string
	taken, refused []int
	text           func(int) string
	run            func(int) error // nil: the owner does not look at it again
}

func key(format string) func(int) string {
	return func(n int) string { return minimal + fmt.Sprintf(format, n) + "\n" }
}

// attachment is a configuration of one attachment with another key.
func attachment(format string) func(int) string {
	return func(n int) string {
		return "policy: [p]\nattachments: [{internet: true, device: a, " + fmt.Sprintf(format, n) + "}]\n"
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func ofFlows(set func(*conntrack.Options, int)) func(int) error {
	return func(n int) error {
		o := conntrack.Options{Max: 1}
		set(&o, n)
		_, err := conntrack.New(o)
		return err
	}
}

func ofDevice(set func(*tun.Config, int)) func(int) error {
	return func(n int) error {
		c := tun.Config{Name: "a"}
		set(&c, n)
		_, _, err := tun.Open(c)
		return err
	}
}

// manyAttachments are so many in a configuration.
func manyAttachments(n int) string {
	var b strings.Builder
	b.WriteString("policy: [p]\nattachments:\n")
	for i := range n {
		fmt.Fprintf(&b, "- {subnet: s%d, device: d%d}\n", i, i)
	}
	return b.String()
}

// nsgd check took flows.max up to 16,777,216, and nsgd run refused it. Each limit is its owner's.
func TestCheckRefusesWhatRunRefuses(t *testing.T) {
	ticks := func(n int) string { return fmt.Sprintf("%dms", n*int(conntrack.TickLength.Milliseconds())) }
	week := int(conntrack.MaxTimeout / conntrack.TickLength)
	socketDir := t.TempDir()
	for _, l := range []limit{
		{"workers", []int{0, tun.MaxQueues}, []int{-1, tun.MaxQueues + 1}, key("workers: %d"), ofDevice(func(c *tun.Config, n int) { c.Queues = n })},
		{"flows", []int{0, conntrack.MaxFlows}, []int{-1, conntrack.MaxFlows + 1}, key("flows: {max: %d}"), ofFlows(func(o *conntrack.Options, n int) { o.Max = n })},
		{"flows of a NIC", []int{0, conntrack.MaxFlows}, []int{-1, conntrack.MaxFlows + 1}, key("flows: {maxPerNetworkInterface: %d}"), ofFlows(func(o *conntrack.Options, n int) { o.MaxPerZone = n })},
		{"new flows", []int{0, conntrack.MaxNewPerSecond}, []int{-1, conntrack.MaxNewPerSecond + 1}, key("flows: {newPerSecond: %d}"), ofFlows(func(o *conntrack.Options, n int) { o.NewPerSecond = n })},
		{"datagrams", []int{0, fragment.MaxDatagrams}, []int{-1, fragment.MaxDatagrams + 1}, key("fragments: {max: %d}"), func(n int) error {
			_, err := fragment.New(fragment.Options{Max: n})
			return err
		}},
		{"held fragments", []int{0, fragment.MaxHold}, []int{-1, fragment.MaxHold + 1}, key("fragments: {hold: %d}"), func(n int) error {
			_, err := fragment.New(fragment.Options{Hold: n})
			return err
		}},
		{"denied packets in the log", []int{0, denylog.MaxPerSecond}, []int{-1, denylog.MaxPerSecond + 1}, key("denyLog: {perSecond: %d}"), nil},
		{"the history", []int{0, int(history.MinKeep.Seconds()), int(history.MaxKeep.Seconds())}, []int{-1, int(history.MinKeep.Seconds()) - 1, int(history.MaxKeep.Seconds()) + 1}, key("history: {keep: %ds}"), nil},
		{"a timeout", []int{1, week}, []int{-1, week + 1}, func(n int) string { return minimal + "timeouts: {icmp: " + ticks(n) + "}\n" },
			ofFlows(func(o *conntrack.Options, n int) {
				o.Timeouts.ICMP = time.Duration(n) * conntrack.TickLength
			})},
		{"MTU", []int{0, tun.MinMTU, tun.MaxMTU}, []int{tun.MinMTU - 1, tun.MaxMTU + 1}, attachment("mtu: %d"), ofDevice(func(c *tun.Config, n int) { c.MTU = n })},
		{"MTU with IPv6", []int{0, tun.MinMTU6, tun.MaxMTU}, []int{tun.MinMTU6 - 1, tun.MaxMTU + 1}, attachment("addresses: ['2001:db8::1/64'], mtu: %d"), nil},
		{"a device's name", []int{1, 15}, []int{0, 16}, func(n int) string { return "policy: [p]\nattachments: [{internet: true, device: '" + long(n) + "'}]\n" },
			ofDevice(func(c *tun.Config, n int) { c.Name = long(n) })},
		{"a namespace's name", []int{0, 255}, []int{256}, func(n int) string { return attachment("mtu: %d, netns: '" + long(n) + "'")(0) },
			ofDevice(func(c *tun.Config, n int) { c.Namespace = long(n) })},
		{"the socket's path", []int{control.MaxSocketPath}, []int{control.MaxSocketPath + 1},
			func(n int) string { return minimal + "control: {socket: /" + long(n-1) + "}\n" }, func(n int) error {
				_, err := control.Listen(filepath.Join(socketDir, long(n-len(socketDir)-1)), control.Access{})
				return err
			}},
		{"attachments", []int{1, dataplane.MaxAttachments}, []int{0, dataplane.MaxAttachments + 1}, manyAttachments,
			ofFlows(func(o *conntrack.Options, n int) { o.Zones = 2*n + map[bool]int{true: -1}[n == 0] })},
		{"the templates' time", []int{0, int(arm.MaxTimeout.Seconds())}, []int{-1, int(arm.MaxTimeout.Seconds()) + 1}, key("templates: {timeout: %ds}"), nil},
		{"a flow log's size", []int{0, flowlog.MinMaxSize, 1 << 40}, []int{flowlog.MinMaxSize - 1}, key("flowLogs: [{version: nsg2, folder: l, maxSize: %d}]"), nil},
		{"a flow log's interval", []int{0, int(flowlog.MinInterval.Seconds()), int(flowlog.MaxInterval.Seconds())}, []int{-1, int(flowlog.MaxInterval.Seconds()) + 1}, key("flowLogInterval: %ds"), nil},
	} {
		t.Run(l.name, func(t *testing.T) {
			for _, n := range l.taken {
				if _, err := parseConfig("c.yaml", []byte(l.text(n))); err != nil {
					t.Errorf("%d is refused: %v", n, err)
				}
			}
			for _, n := range l.refused {
				if _, err := parseConfig("c.yaml", []byte(l.text(n))); err == nil {
					t.Errorf("check takes %d", n)
				}
				if l.run != nil && l.run(n) == nil {
					t.Errorf("run takes %d: the limit is not the owner's", n)
				}
			}
		})
	}
}

// TestTheEngineDrawsTheBalancersSeed: a seed of the daemon's own would be another one in each process.
func TestTheEngineDrawsTheBalancersSeed(t *testing.T) {
	if seed := (&Config{}).engineOptions(nil).Topology.Seed; seed != 0 {
		t.Errorf("seed %d: the engine takes that of the process before", seed)
	}
}
