package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/container"
	"github.com/nsgd/nsgd/tun/intercept"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const withInterfaces = `policy: [policy/]
attachments:
- {networkInterface: vm1-nic, interface: tap-vm1, device: nsgd-vm1}
- {networkInterface: vm3-nic, interface: tap-vm3, netns: other, wait: true, device: nsgd-vm3}
- {subnet: Subnet2, device: nsgd-sub2}
- {gateway: vnet1, device: nsgd-gw, prefixes: [192.168.0.0/16]}
- {platform: true, device: nsgd-azure}
- {internet: true, device: nsgd-inet}
`

// loadInterfaces loads a configuration with the lab's policy.
func loadInterfaces(t *testing.T, text string) *loaded {
	t.Helper()
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "interfaces.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := loadAll(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInterfacesAreToldWhatThePolicySays(t *testing.T) {
	all := loadInterfaces(t, withInterfaces)
	c, set, to := all.config, all.policy, all.snapshot.Attachments
	same := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	ports := []privileged.Port{{Port: intercept.Port{
		Interface: "tap-vm1", Device: "nsgd-vm1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.4"), netip.MustParseAddr("fd00:db8:1:1::4")},
		Near: prefixes("10.0.1.0/24", "fd00:db8:1:1::/64", "10.0.1.0/24", "fd00:db8:1:1::/64"),
	}}}
	if diff := cmp.Diff(ports, c.ports("", set), same); diff != "" {
		t.Error(diff)
	}
	rests := []intercept.Rest{
		{Device: "nsgd-sub2", Prefixes: prefixes("10.0.2.0/24", "fd00:db8:1:2::/64"), Near: true},
		{Device: "nsgd-gw", Prefixes: prefixes("192.168.0.0/16"), Near: true},
		{Device: "nsgd-azure", Prefixes: prefixes("168.63.129.16/32", "169.254.169.254/32"), Near: true, Local: true},
		{Device: "nsgd-inet", Prefixes: prefixes("0.0.0.0/0", "::/0")},
	}
	if diff := cmp.Diff(rests, c.rests("", set, to), same); diff != "" {
		t.Error(diff)
	}
	plan, err := planDevices(c, set, to)
	if err != nil {
		t.Fatal(err)
	}
	for i, kept := range []bool{true, true, true, true, false, true} {
		if p := &plan[i]; p.Keep != kept || kept && (len(p.Addresses) > 0 || len(p.Routes) > 0) {
			t.Errorf("device %s: keep %v, addresses %v, routes %v", p.Name, p.Keep, p.Addresses, p.Routes)
		}
	}
}

func TestADeviceThatStaysComesNotToStandBesideInterfaces(t *testing.T) {
	before := loadInterfaces(t, "policy: [policy/]\nattachments:\n- {internet: true, device: nsgd-inet}\n").config
	after := *before
	after.Attachments = append([]AttachmentConfig{{NetworkInterface: "vm1-nic", Interface: "tap-vm1", Device: "nsgd-vm1"}}, before.Attachments...)
	err := (&live{running: before}).fixed(&after)
	if want := "attachments[1].device: nsgd-inet stays, and would stand beside interfaces"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

// privilegedPart serves in this process, until the test ends.
func privilegedPart(t *testing.T, places *privileged.Places) *privileged.Client {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		ends[i] = conn.(*net.UnixConn)
	}
	served := make(chan error, 1)
	go func() {
		served <- privileged.Serve(ends[1], func() (*privileged.Places, error) { return places, nil }, nil)
	}()
	client := privileged.NewClient(ends[0])
	t.Cleanup(func() {
		if err := errors.Join(client.Leave(), <-served); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestInterfacesAreShownWhileDockerIsAsked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	namespace := fmt.Sprintf("nsgd-test-%d", os.Getpid())
	state, err := tun.OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if err := state.CreateNamespace(namespace); err != nil {
		t.Fatal(err)
	}
	err = tun.Do(namespace, func() error {
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	})
	if err != nil {
		t.Fatal(err)
	}
	asked, shown := make(chan struct{}, 1), make(chan struct{})
	var early bool
	docker := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-shown:
		case <-r.Context().Done():
			early = true
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	socket := filepath.Join(t.TempDir(), "docker.sock")
	if docker.Listener, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	defer func(sockets []string) { container.Sockets = sockets }(container.Sockets)
	container.Sockets = []string{socket}
	docker.Start()
	all := loadInterfaces(t, "policy: [policy/]\nattachments:\n"+
		"- {networkInterface: vm1-nic, container: web, bridge: br0, netns: "+namespace+", wait: true, device: nsgd-vm1}\n")
	n := interception{log: slog.New(slog.DiscardHandler), privileged: privilegedPart(t, &privileged.Places{Interfaces: map[string]bool{namespace: true}})}
	defer n.close()
	prepared := make(chan error)
	go func() {
		prepared <- n.prepare(all.config, make([]tun.Config, len(all.config.Attachments)), all.policy, all.snapshot.Attachments)
	}()
	<-asked
	n.statuses()
	close(shown)
	if err := <-prepared; err != nil {
		t.Error(err)
	}
	docker.Close()
	if early {
		t.Error("they are not shown before Docker is given up")
	}
}
