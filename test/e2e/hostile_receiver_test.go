package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// slowRules are so many that each packet takes the receiver's kernel hundreds of microseconds.
func slowRules() string {
	var b strings.Builder
	b.WriteString("table ip slow {\nchain c {\ntype filter hook prerouting priority 0\n")
	for i := range 20_000 {
		fmt.Fprintf(&b, "ip saddr 1.2.%d.%d udp dport %d drop\n", i>>8, i&0xff, i+1)
	}
	b.WriteString("}\n}\n")
	return b.String()
}

// The kernel runs a receiver's netfilter rules in the thread that writes to its device. Two bystanders
// lose nothing, however long those take.
func TestHostile14AReceiverWithSlowRules(t *testing.T) {
	start(t, labPolicy())
	besideSlow(t, vm3)
}

// Nor do they when there are five such receivers.
func TestHostile14FiveReceiversWithSlowRules(t *testing.T) {
	dir := configure(t, labPolicy())
	const nic = `{"type": "Microsoft.Network/networkInterfaces", "name": "slow%[1]d-nic", "id": "%[2]snetworkInterfaces/slow%[1]d-nic",
		"properties": {"ipConfigurations": [{"name": "ipconfig1", "properties": {"privateIPAddress": "%[3]v", "primary": true,
		"subnet": {"id": "%[2]svirtualNetworks/vnet1/subnets/Subnet3"}}}]}}`
	const base = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/lab/providers/Microsoft.Network/"
	slow := []lab.Host{vm3}
	var nics []string
	attachments := "attachments:\n"
	for i := range 4 {
		h := lab.Host{Name: fmt.Sprintf("slow%d", i), Namespace: fmt.Sprintf("nsgd-slow%d", i), Address: netip.AddrFrom4([4]byte{10, 0, 3, byte(100 + i)})}
		slow, nics = append(slow, h), append(nics, fmt.Sprintf(nic, i, base, h.Address))
		attachments += fmt.Sprintf("- {networkInterface: slow%d-nic, netns: %s, create: true, device: eth0}\n", i, h.Namespace)
	}
	writeFile(t, filepath.Join(dir, "policy", "slow.json"), "["+strings.Join(nics, ",")+"]")
	file := filepath.Join(dir, lab.ConfigName)
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, strings.Replace(string(config), "attachments:\n", attachments, 1))
	needWorld(t)
	startIn(t, dir)
	besideSlow(t, slow...)
}

// besideSlow gives receivers slow rules, sends them more than they take, and has two bystanders ping each other.
func besideSlow(t *testing.T, slow ...lab.Host) {
	t.Helper()
	needNftables(t)
	from := bindUDP(t, vm1, 0)
	var to []netip.AddrPort
	for _, h := range slow {
		inside(t, h, func() error {
			out, err := nft(slowRules())
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		to = append(to, address(bindUDP(t, h, 0)))
	}
	quiet := pings(t, 100, vm4, vm1)
	flood := startFlood(t, 6*time.Millisecond, 32, func(n int) { // 5,300 a second, and no two in one superpacket
		from.WriteToUDPAddrPort(make([]byte, 32+n%32), to[n%len(to)])
	})
	eventually(t, "many packets are sent", func() bool { return flood.sent.Load() >= 2000*int64(len(to)) })
	loud := pings(t, 100, vm4, vm1)
	flood.stop()
	t.Logf("%d packets to %d slow receivers, %v dropped; round trips quiet %v, beside them %v",
		flood.sent.Load(), len(slow), scrape(t).drops("slow_receiver"), trips(quiet), trips(loud))
}

// steadyFlood sends packets at a steady pace.
type steadyFlood struct {
	sent atomic.Int64
	stop func()
}

// startFlood calls send for count packets at a time, with the number of each from 0 on. It ends with the test at the latest.
func startFlood(t *testing.T, pace time.Duration, count int, send func(n int)) *steadyFlood {
	ending, ended := make(chan struct{}), make(chan struct{})
	f := &steadyFlood{stop: sync.OnceFunc(func() {
		close(ending)
		<-ended
	})}
	t.Cleanup(f.stop)
	go func() {
		defer close(ended)
		ticker := time.NewTicker(pace)
		defer ticker.Stop()
		for n := 0; ; {
			select {
			case <-ending:
				return
			case <-ticker.C:
				for range count {
					send(n)
					n++
					f.sent.Add(1)
				}
			}
		}
	}()
	return f
}

// pings sends n echo requests, one by one, and returns the round trips. Each must be answered.
func pings(t *testing.T, n int, from, to lab.Host) (all []time.Duration) {
	t.Helper()
	for range n {
		begun := time.Now()
		mustPing(t, from, to)
		all = append(all, time.Since(begun))
	}
	return all
}

func trips(all []time.Duration) string {
	slices.Sort(all)
	return fmt.Sprintf("median %v, p99 %v", all[len(all)/2], all[len(all)*99/100])
}
