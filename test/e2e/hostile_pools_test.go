package e2e

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// One VM takes all ports of its NAT gateway that it can get, and asks for 5,000 more a second. Two
// bystanders lose nothing.
func TestHostile03FullPoolsOfPorts(t *testing.T) {
	dir := translationLab(t)
	editDocument(t, dir, "app-gateway", func(properties map[string]any) { properties["idleTimeoutInMinutes"] = 120 }) // they all live until the end
	startIn(t, dir)
	// The receiver's kernel would answer each datagram.
	if err := tun.Do(client.Namespace, func() error { return mute("prerouting") }); err != nil {
		t.Fatal(err)
	}
	var from port
	if err := tun.Do(gatewayVM.Namespace, func() error { return from.open("eth0") }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(from.fd) })
	send := func(port int) {
		s := packettest.Spec{Src: gatewayVM.Address.String(), Dst: client.Address.String(), SrcPort: uint16(port), DstPort: 9, Payload: 8}
		if err := from.send(packettest.UDP(s)); err != nil && err != unix.ENOBUFS {
			t.Error(err)
		}
	}
	quiet := pings(t, 1000, web1, publicVM)
	const first, pool, part = 1024, 64512, 2048 // one flow for each port of the pool
	for begun := 0; begun < pool; begun += part {
		end := min(begun+part, pool)
		eventually(t, "the pool fills", func() bool {
			for p := begun; p < end; p++ {
				send(first + p)
			}
			return scrape(t)["nsgd_translations"] == float64(end)
		})
	}
	refused := func() float64 { return scrape(t).drops("snat_exhausted") }
	before := refused()
	flood := startFlood(t, 2*time.Millisecond, 10, func(n int) { send(1 + n%(first-1)) }) // 5,000 a second
	loud := pings(t, 1000, web1, publicVM)
	eventually(t, "the flood is refused", func() bool { return refused()-before >= 5000 })
	flood.stop()
	if n := scrape(t)["nsgd_translations"]; n != pool {
		t.Errorf("%v translations with %d ports", n, pool)
	}
	t.Logf("%d packets into the full pool, %v refused; round trips quiet %v, beside it %v", flood.sent.Load(), refused()-before, trips(quiet), trips(loud))
}
