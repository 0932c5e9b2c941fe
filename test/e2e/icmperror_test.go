package e2e

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

func TestPortUnreachableComesBackThoughNoRuleLetsICMPIn(t *testing.T) {
	start(t, groups([]rule{allowHTTPIn}, []rule{allowHTTPIn}))
	eachFamily(t, func(t *testing.T, f family) {
		mustNotPing(t, f.internet, f.vm1)
		if err := refusal(t, f.vm1, f.internet); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("a datagram to a closed port of the internet: %v, want connection refused", err)
		}
	})
}

// refusal sends a datagram to a port that nobody listens on and returns what the
// sender's socket says.
func refusal(t *testing.T, from, to lab.Host) error {
	t.Helper()
	conn := dialUDP(t, from, netip.AddrPortFrom(to.Address, 9))
	if _, err := conn.Write([]byte("anybody there?")); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	_, err := conn.Read(make([]byte, 64))
	return err
}
