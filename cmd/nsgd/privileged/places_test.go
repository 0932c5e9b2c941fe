package privileged

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/intercept"
	"golang.org/x/sys/unix"
)

// pair connects a client to a privileged part in this process, which may do nothing but what places name.
func pair(t *testing.T, places Places) *Client {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := socket(ends[0])
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := socket(ends[1])
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- Serve(theirs, func() (*Places, error) { return &places, nil }, nil) }()
	c := NewClient(ours)
	t.Cleanup(func() {
		c.rpc.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestWhatTheConfigurationDoesNotNameIsRefused asks for what a daemon that was taken over might want.
func TestWhatTheConfigurationDoesNotNameIsRefused(t *testing.T) {
	c := pair(t, Places{Namespaces: map[string]bool{"": true, "named": true}})
	device := func(d tun.Config) error {
		_, _, err := c.Open(d)
		return err
	}
	manyAddresses := make([]netip.Prefix, maxPrefixes+1)
	everything := netip.MustParsePrefix("0.0.0.0/0")
	tests := []struct {
		name string
		ask  func() error
		says string
	}{
		{"a device in another namespace", func() error { return device(tun.Config{Name: "nsgd0", Namespace: "other"}) }, "no attachment there"},
		{"a device in a process's namespace", func() error { return device(tun.Config{Name: "nsgd0", Namespace: "pid:1"}) }, "no attachment there"},
		{"all that the host sends", func() error { return device(tun.Config{Name: "nsgd0", Routes: []netip.Prefix{everything}}) }, "4 bits or more"},
		{"all IPv6 that the host sends", func() error {
			return device(tun.Config{Name: "nsgd0", Routes: []netip.Prefix{netip.MustParsePrefix("::/1")}})
		}, "7 bits or more"},
		{"very many addresses", func() error { return device(tun.Config{Name: "nsgd0", Addresses: manyAddresses}) }, "addresses: allowed are"},
		{"a device before the state directory is held", func() error { return device(tun.Config{Name: "nsgd0", Namespace: "named"}) }, "not begun"},
		{"interfaces where the configuration has none", func() error { _, err := c.Intercept("named"); return err }, "no attachment there"},
		{"to open interfaces elsewhere", func() error { return c.Detach("other") }, "no attachment there"},
		{"frames of an interface elsewhere", func() error { _, _, err := c.Frames("named", "lo", false); return err }, "no attachment there"},
		{"a socket of the platform that there is not", func() error { _, _, err := c.Probe(netip.MustParseAddr("168.63.129.16")); return err }, "platform: true"},
		{"services that are off", func() error { _, err := c.Services(); return err }, "platformServices: true"},
		{"a device that it does not have", func() error { return remote{c, 7}.SetMTU(1400) }, "closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.ask(); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
		})
	}
}

// TestTheDaemonEndsWithThePrivilegedPart waits for nothing but the connection.
func TestTheDaemonEndsWithThePrivilegedPart(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := socket(ends[0])
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ours)
	if err := unix.Close(ends[1]); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
	if _, _, err := c.Begin(false); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want %v", err, ErrGone)
	}
}

// TestPortsCrossWhole holds what a privileged part gets of a port to what the daemon has.
func TestPortsCrossWhole(t *testing.T) {
	sent := Arrangement{Namespace: "n", Ports: []Port{{Container: "web", Port: intercept.Port{
		Bridge: "docker0", Guest: "container web", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Wait: true, Shut: true, Host: true, Device: "nsgd-web",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.4")}, Near: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}, Forwards: true, Gateway: true,
	}}}, Rests: []intercept.Rest{{Device: "nsgd-inet", Prefixes: []netip.Prefix{netip.MustParsePrefix("::/0")}, Near: true, Local: true}}}
	got := Arrangement{}
	cross(t, sent, &got)
	if diff := cmp.Diff(sent, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if ports := Ports(got.Ports); ports[0].Process == nil {
		t.Error("nobody looks for the container")
	}
}

// TestDescriptorsCross sends more of them than the kernel takes at a time.
func TestDescriptorsCross(t *testing.T) {
	before := openEvents(t)
	sent, got := &Socket{Zone: 3}, &Socket{}
	for range perControl + 5 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		sent.list = append(sent.list, fd)
	}
	cross(t, sent, got)
	if len(got.list) != len(sent.list) || got.Zone != 3 {
		t.Errorf("%d descriptors of %d, zone %d", len(got.list), len(sent.list), got.Zone)
	}
	closeAll(got.list)
	cross(t, sent, &None{}) // nobody takes them: they must not stay open
	closeAll(sent.list)
	if after := openEvents(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// openEvents counts the descriptors of eventfds. What tests before have left of others may be closed at any time.
func openEvents(t *testing.T) (n int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if to, _ := os.Readlink("/proc/self/fd/" + f.Name()); to == "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

// cross sends a body from one end of a wire to the other.
func cross(t *testing.T, sent, got any) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wires [2]wire
	for i := range ends {
		if wires[i].conn, err = socket(ends[i]); err != nil {
			t.Fatal(err)
		}
		defer wires[i].Close()
	}
	failed := make(chan error, 1)
	go func() { failed <- wires[0].send(message{Number: 1}, sent) }()
	if _, err := wires[1].receive(); err != nil {
		t.Fatal(err)
	}
	if err := wires[1].take(got); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
