package e2e

import (
	"bytes"
	"crypto/rand"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// largestUDP is the most that a datagram can hold: 65,535 bytes less the UDP header
// and, over IPv4, whose length counts it, the IP header.
var largestUDP = map[lab.Family]int{lab.IPv4: 65_507, lab.IPv6: 65_527}

// fragmentHeader is that of IPv6 (RFC 8200 section 4.5).
const fragmentHeader = 8

// fragmentsOf is into how many fragments a kernel cuts a datagram for an MTU of 1500,
// and their bytes.
func fragmentsOf(f family, size int) (packets, bytes float64) {
	header := f.ipHeader
	if f.Family == lab.IPv6 {
		header += fragmentHeader
	}
	each := (1500 - header) &^ 7 // all but the last end on a multiple of 8
	n := (udpHeader + size + each - 1) / each
	return float64(n), float64(udpHeader + size + n*header)
}

// mustDeliver sends one datagram and checks that it arrives as it was sent.
func mustDeliver(t *testing.T, from, to *net.UDPConn, size int) {
	t.Helper()
	if !deliver(t, from, to, size, patience) {
		t.Fatalf("%d bytes from %s to %s did not arrive", size, from.LocalAddr(), to.LocalAddr())
	}
}

func deliver(t *testing.T, from, to *net.UDPConn, size int, timeout time.Duration) bool {
	t.Helper()
	datagram := make([]byte, size)
	rand.Read(datagram)
	if _, err := from.WriteToUDPAddrPort(datagram, address(to)); err != nil {
		t.Fatal(err)
	}
	to.SetReadDeadline(time.Now().Add(timeout))
	buf := make([]byte, 1<<16)
	n, source, err := to.ReadFromUDPAddrPort(buf)
	if isTimeout(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf[:n], datagram) || source != address(from) {
		t.Fatalf("%d other bytes from %s, want the %d from %s", n, source, size, from.LocalAddr())
	}
	return true
}

func TestLargestDatagramArrivesWhole(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		for _, to := range []lab.Host{f.vm2, f.vm4, f.internet} {
			t.Run("to "+to.Name, func(t *testing.T) {
				here, there := bindUDP(t, f.vm1, 0), bindUDP(t, to, 0)
				mustDeliver(t, here, there, largestUDP[f.Family])
				mustDeliver(t, there, here, largestUDP[f.Family])
			})
		}
	})
}

func TestPingOf20000BytesIsAnswered(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		for _, to := range []lab.Host{f.vm2, f.vm4, f.internet} {
			t.Run(to.Name, func(t *testing.T) {
				// One at a time: behind an answer ping waits for the next no longer than twice
				// as long as for that one, whatever -W says.
				for range 3 {
					out, err := runOn(t, f.vm1, "ping", "-n", "-c", "1", "-W", "30", "-s", "20000", to.Address.String())
					if err != nil || !strings.Contains(out, "20008 bytes from") {
						t.Fatalf("%v: %s%s", err, out, nsgctl(t, "status"))
					}
				}
			})
		}
	})
}

func TestDeniedDatagramOfManyFragmentsCountsThemAllOnTheRule(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		const size = 10_000
		from, to := bindUDP(t, f.internet, 0), bindUDP(t, f.vm2, 0)
		before := scrape(t)
		send(t, from, address(to), 1, size)
		receiveNothing(t, to)
		packets, bytes := fragmentsOf(f, size)
		c := since(t, before, func(c counts) bool { return c.rule(deniedIn(nsg1)).packets >= packets })
		if got := c.rule(deniedIn(nsg1)); got.packets != packets || got.bytes != bytes {
			t.Errorf("counted %+v, want %v packets and %v bytes", got, packets, bytes)
		}
	})
}

func TestAllowedDatagramOfManyFragmentsIsOneHitAndAllOfThem(t *testing.T) {
	start(t, labPolicy())
	vnetOut := decided{nsg2, "Outbound", "AllowVnetOutBound", "Allow"}
	eachFamily(t, func(t *testing.T, f family) {
		const size = 10_000
		from, to := bindUDP(t, f.vm3, 0), bindUDP(t, f.vm4, 0)
		before := scrape(t)
		mustDeliver(t, from, to, size)
		packets, bytes := fragmentsOf(f, size)
		want := ruleCount{1, packets, bytes}
		c := since(t, before, func(c counts) bool { return c.rule(vnetOut).packets >= packets })
		if got := c.rule(vnetOut); got != want {
			t.Errorf("%+v counted %+v, want %+v", vnetOut, got, want)
		}
	})
}

// Over IPv6 the sender alone fragments, and learns from an error that quotes a fragment
// that its fragments are too big; over IPv4 the router fragments again.
func TestFragmentsFindTheMTUOfTheWay(t *testing.T) {
	start(t, labPolicy())
	routeBeyond(t)
	eachFamily(t, func(t *testing.T, f family) {
		far := beyond.in(f)
		mustNotPing(t, far, f.vm1)
		eventually(t, "a large datagram arrives", func() bool { // by new sockets: an earlier one may come late
			return deliver(t, bindUDP(t, f.vm1, 0), bindUDP(t, far, 0), 20_000, silence)
		})
		here, there := bindUDP(t, f.vm1, 0), bindUDP(t, far, 0)
		mustDeliver(t, here, there, largestUDP[f.Family])
	})
}
