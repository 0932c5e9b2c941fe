package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// loopbackHosts returns two hosts on random loopback addresses, and options with ports
// that are free there.
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

func serveHosts(t *testing.T, hosts []Host, o Options) {
	t.Helper()
	stop, err := Serve(context.Background(), hosts, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
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
			serveHosts(t, hosts, o)
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

func TestServeReportsAServerThatCannotOpen(t *testing.T) {
	hosts, o := loopbackHosts(t)
	o.OtherPort = o.NamedPort
	if _, err := Serve(context.Background(), hosts, o); err == nil || !strings.Contains(err.Error(), "servers of a") {
		t.Errorf("error %v, want it to name the host", err)
	}
}

func TestServersAnswerCurlAndEchoEverythingElse(t *testing.T) {
	hosts, o := loopbackHosts(t)
	serveHosts(t, hosts, o)
	address := netip.AddrPortFrom(hosts[0].Address, o.NamedPort).String()
	response, err := http.Get("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if want := "a " + address + " answers 127.0.0.1:"; err != nil || !strings.HasPrefix(string(body), want) {
		t.Errorf("%q, %v; want %q", body, err, want)
	}
	for _, word := range []string{"h", "G\n", "Gee!\n"} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, word); err != nil {
			t.Fatal(err)
		}
		// nc closes its side at the end of its input.
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != word || err != nil {
			t.Errorf("%q is answered by %q, %v", word, got, err)
		}
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
	const group, out, in = "NSG1", "defaultSecurityRules/AllowInternetOutBound", "defaultSecurityRules/DenyAllInBound"
	hosts := func(vm1, internet string) (Host, Host) {
		return Host{"VM1", "", netip.MustParseAddr(vm1)}, Host{"internet", "", netip.MustParseAddr(internet)}
	}
	vm1, internet := hosts("10.0.1.4", "203.0.113.10")
	vm1v6, internetV6 := hosts("fd00:db8:1:1::4", "2001:db8::10")
	allowed := Result{Passed: true, Explained: true, Allowed: true, NetworkSecurityGroup: group, Rule: out}
	denied := Result{Err: os.ErrDeadlineExceeded, Explained: true, NetworkSecurityGroup: group, Rule: in}
	unexplained := Result{Passed: true}
	between := func(r Result, from, to Host, p Protocol, port uint16) Result {
		r.Source, r.Destination, r.Protocol, r.Port = from, to, p, port
		return r
	}
	tests := []struct {
		name string
		rows []Result
		want string
	}{
		{"both families of a probe are one line", []Result{
			between(allowed, vm1, internet, TCP, 80), between(denied, internet, vm1, ICMP, 0),
			between(allowed, vm1v6, internetV6, TCP, 80), between(denied, internetV6, vm1v6, ICMP, 0),
		}, `SOURCE    DESTINATION  PROTOCOL  IPV4     IPV6     NSG   RULE
VM1       internet     TCP/80    allowed  allowed  NSG1  defaultSecurityRules/AllowInternetOutBound
internet  VM1          ICMP      denied   denied   NSG1  defaultSecurityRules/DenyAllInBound
`},
		{"and two next to each other where they met different rules", []Result{
			between(allowed, vm1, internet, TCP, 80), between(unexplained, vm1, internet, UDP, 9000),
			between(denied, vm1v6, internetV6, TCP, 80), between(unexplained, vm1v6, internetV6, UDP, 9000),
		}, `SOURCE  DESTINATION  PROTOCOL  IPV4     IPV6     NSG   RULE
VM1     internet     TCP/80    allowed  -        NSG1  defaultSecurityRules/AllowInternetOutBound
VM1     internet     TCP/80    -        denied   NSG1  defaultSecurityRules/DenyAllInBound
VM1     internet     UDP/9000  allowed  allowed  -     -
`},
		{"a result that contradicts its verdict says both", []Result{
			{Source: vm1, Destination: internet, Protocol: TCP, Port: 80, Err: os.ErrDeadlineExceeded, Explained: true, Allowed: true},
			{Source: vm1v6, Destination: internetV6, Protocol: TCP, Port: 80, Passed: true, Explained: true},
		}, `SOURCE  DESTINATION  PROTOCOL  IPV4                                    IPV6                          NSG  RULE
VM1     internet     TCP/80    MISMATCH: rules allow, but i/o timeout  MISMATCH: passed, rules deny  -    -
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got bytes.Buffer
			if err := Table(&got, tt.rows); err != nil {
				t.Fatal(err)
			}
			if got.String() != tt.want {
				t.Errorf("got\n%swant\n%s", got.String(), tt.want)
			}
		})
	}
}

func TestInternetChecksumOfAMessageWithItsChecksumIsZero(t *testing.T) {
	m := echoMessage(icmpEchoRequest, 0x1234, 7, []byte("abcdefgh"))
	if sum := internetChecksum(m); sum != 0 {
		t.Errorf("checksum over a whole message is %#04x", sum)
	}
}
