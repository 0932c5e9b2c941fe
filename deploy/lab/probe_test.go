package lab

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// loopbackHosts are two hosts on loopback addresses that nobody else uses, and
// ports that are free there.
func loopbackHosts(t *testing.T) ([]Host, Options) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("raw ICMP sockets need root")
	}
	var hosts []Host
	for _, name := range []string{"a", "b"} {
		address := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(256)), byte(1 + rand.IntN(250))})
		hosts = append(hosts, Host{Name: name, Address: address})
	}
	o := Options{within: func(_ string, f func() error) error { return f() }}
	for _, port := range []*uint16{&o.NamedPort, &o.OtherPort, &o.UDPPort} {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(hosts[0].Address, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		*port = uint16(listener.Addr().(*net.TCPAddr).Port)
	}
	return hosts, o
}

func TestRun(t *testing.T) {
	verdict := func(allowed bool) func(Result) (string, string, bool) {
		return func(Result) (string, string, bool) { return "NSG1", "securityRules/R", allowed }
	}
	tests := []struct {
		name     string
		explain  func(Result) (string, string, bool)
		mismatch bool
	}{
		{"without an explanation reports what the wire did", nil, false},
		{"agrees with a verdict that says the same", verdict(true), false},
		{"reports a verdict that the wire contradicts", verdict(false), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hosts, o := loopbackHosts(t)
			// Nothing is dropped here, so waiting long costs nothing.
			o.Timeout = time.Minute
			o.Explain = tt.explain
			results, err := Run(context.Background(), hosts, o)
			if errors.Is(err, ErrMismatch) != tt.mismatch || err != nil && !tt.mismatch {
				t.Fatalf("error %v, want mismatch %v", err, tt.mismatch)
			}
			if len(results) != 8 {
				t.Fatalf("%d results, want 4 for each of 2 pairs", len(results))
			}
			for _, r := range results {
				if !r.Passed {
					t.Errorf("%s -> %s %s: %v", r.Source.Name, r.Destination.Name, r.service(), r.Err)
				}
			}
		})
	}
}

func TestRunReportsAServerThatCannotOpen(t *testing.T) {
	hosts, o := loopbackHosts(t)
	o.OtherPort = o.NamedPort
	if _, err := Run(context.Background(), hosts, o); err == nil || !strings.Contains(err.Error(), "servers of a") {
		t.Errorf("error %v, want it to name the host", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	hosts, o := loopbackHosts(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, hosts, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestTable(t *testing.T) {
	a, b := Host{Name: "VM1"}, Host{Name: "internet"}
	rows := []Result{
		{Source: a, Destination: b, Protocol: TCP, Port: 80, Passed: true,
			Explained: true, Allowed: true, NetworkSecurityGroup: "NSG1", Rule: "defaultSecurityRules/AllowInternetOutBound"},
		{Source: b, Destination: a, Protocol: ICMP, Err: os.ErrDeadlineExceeded,
			Explained: true, NetworkSecurityGroup: "NSG1", Rule: "defaultSecurityRules/DenyAllInBound"},
		{Source: a, Destination: b, Protocol: UDP, Port: 9000, Passed: true},
		{Source: a, Destination: b, Protocol: TCP, Port: 80, Err: os.ErrDeadlineExceeded, Explained: true, Allowed: true},
		{Source: a, Destination: b, Protocol: TCP, Port: 80, Passed: true, Explained: true},
	}
	const want = `SOURCE    DESTINATION  PROTOCOL  WIRE                                    NSG   RULE
VM1       internet     TCP/80    allowed                                 NSG1  defaultSecurityRules/AllowInternetOutBound
internet  VM1          ICMP      denied                                  NSG1  defaultSecurityRules/DenyAllInBound
VM1       internet     UDP/9000  allowed                                 -     -
VM1       internet     TCP/80    MISMATCH: rules allow, but i/o timeout  -     -
VM1       internet     TCP/80    MISMATCH: passed, rules deny            -     -
`
	var got bytes.Buffer
	if err := Table(&got, rows); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}

func TestInternetChecksumOfAMessageWithItsChecksumIsZero(t *testing.T) {
	m := echoMessage(icmpEchoRequest, 0x1234, 7, []byte("abcdefgh"))
	if sum := internetChecksum(m); sum != 0 {
		t.Errorf("checksum over a whole message is %#04x", sum)
	}
}
