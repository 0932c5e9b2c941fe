package e2e

import (
	"fmt"
	"slices"
	"strings"
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
	needNftables(t)
	start(t, labPolicy())
	inside(t, vm3, func() error {
		out, err := nft(slowRules())
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	quiet := pings(t, vm4, vm1)
	from, to := bindUDP(t, vm1, 0), bindUDP(t, vm3, 0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	var sent atomic.Int64
	go func() {
		defer close(stopped)
		pace := time.NewTicker(6 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-stop:
				return
			case <-pace.C:
				for range 32 { // 5,300 a second
					from.WriteToUDPAddrPort(make([]byte, 32), address(to))
					sent.Add(1)
				}
			}
		}
	}()
	eventually(t, "many packets are sent", func() bool { return sent.Load() >= 2000 })
	loud := pings(t, vm4, vm1)
	close(stop)
	<-stopped
	t.Logf("%d packets to the slow receiver, %v dropped; round trips quiet %v, beside it %v", sent.Load(), scrape(t).drops("slow_receiver"), trips(quiet), trips(loud))
}

// pings sends 100 echo requests, one by one, and returns the round trips. Each must be answered.
func pings(t *testing.T, from, to lab.Host) (all []time.Duration) {
	t.Helper()
	for range 100 {
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
