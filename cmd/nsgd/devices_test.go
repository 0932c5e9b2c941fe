package main

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

var comparable = cmpopts.EquateComparable(netip.Prefix{})

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func TestLabDevices(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	all, err := loadAll(t.Context(), filepath.Join(dir, lab.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	got, err := planDevices(all.config, all.policy, all.snapshot.Attachments)
	if err != nil {
		t.Fatal(err)
	}
	device := func(namespace string, addresses ...string) tun.Config {
		return tun.Config{Name: "eth0", Namespace: namespace, CreateNamespace: true, Loopback: true,
			Addresses: prefixes(addresses...), Routes: prefixes("0.0.0.0/0", "::/0")}
	}
	want := []tun.Config{
		device("nsgd-vm1", "10.0.1.4/24", "fd00:db8:1:1::4/64"), device("nsgd-vm2", "10.0.1.5/24", "fd00:db8:1:1::5/64"),
		device("nsgd-vm3", "10.0.2.4/24", "fd00:db8:1:2::4/64"), device("nsgd-vm4", "10.0.3.4/24", "fd00:db8:1:3::4/64"),
		device("nsgd-internet", "203.0.113.10/24", "2001:db8::10/64"),
		device("nsgd-platform", "168.63.129.16/32", "169.254.169.254/32"),
	}
	if diff := cmp.Diff(want, got, comparable); diff != "" {
		t.Error(diff)
	}
}

func TestRoutes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	set, err := inspect.NewPolicyFiles("", filepath.Join(dir, "policy")).Load()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		a         AttachmentConfig
		addresses []netip.Prefix
		taken     []netip.Prefix
		want      []netip.Prefix
	}{
		{"a NIC in its own namespace gets everything", AttachmentConfig{NetworkInterface: "vm1-nic", Netns: "vm1"},
			prefixes("10.0.1.4/24"), nil, prefixes("0.0.0.0/0", "::/0")},
		{"the second in a namespace does not get what the first has", AttachmentConfig{Internet: true, Netns: "vm1"},
			nil, prefixes("0.0.0.0/0"), prefixes("::/0")},
		{"the internet in the daemon's own gets the address spaces and no default route", AttachmentConfig{Internet: true},
			prefixes("203.0.113.10/24"), nil, prefixes("10.0.0.0/16", "fd00:db8:1::/48")},
		{"the platform in the daemon's own likewise", AttachmentConfig{Platform: true}, prefixes("168.63.129.16/32"), nil, prefixes("10.0.0.0/16", "fd00:db8:1::/48")},
		{"a NIC in the daemon's own gets its network's", AttachmentConfig{NetworkInterface: "vm1-nic"}, prefixes("10.0.1.4/24"), nil, prefixes("10.0.0.0/16", "fd00:db8:1::/48")},
		{"a subnet in the daemon's own gets its network's", AttachmentConfig{Subnet: "vnet1/Subnet3"}, nil, nil, prefixes("10.0.0.0/16", "fd00:db8:1::/48")},
		{"the network of an address is the kernel's own route", AttachmentConfig{Internet: true}, prefixes("10.0.0.1/16", "fd00:db8:1::1/48"), nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			taken := map[netip.Prefix]bool{}
			for _, p := range tt.taken {
				taken[p] = true
			}
			if diff := cmp.Diff(tt.want, routes(&tt.a, set, tt.addresses, taken), comparable); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a space that lies within the attached subnet is left to the host's other interface", func(t *testing.T) {
		for _, v := range set.VirtualNetworks {
			v.AddressSpace = append(v.AddressSpace, netip.MustParsePrefix("10.0.3.0/24"))
		}
		got := routes(&AttachmentConfig{Subnet: "vnet1/Subnet3"}, set, nil, map[netip.Prefix]bool{})
		if diff := cmp.Diff(prefixes("10.0.0.0/16", "fd00:db8:1::/48"), got, comparable); diff != "" {
			t.Error(diff)
		}
	})
}

// closing counts how often a memory device was closed.
type closing struct {
	tun.Device
	closed *atomic.Int32 // devices close at a time
}

func (c closing) Close() error { c.closed.Add(1); return c.Device.Close() }

func TestOpenDevicesAtACommonLevel(t *testing.T) {
	tests := []struct {
		name     string
		want     tun.Offload
		gets     []tun.Offload // what the kernel gives each at most
		common   tun.Offload
		reopened int
	}{
		{"all alike", tun.Auto, []tun.Offload{tun.USO, tun.USO}, tun.USO, 0},
		{"the second gets less", tun.Auto, []tun.Offload{tun.USO, tun.TSO, tun.USO}, tun.TSO, 2},
		{"the first gets less", tun.TSO, []tun.Offload{tun.Off, tun.TSO}, tun.Off, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var closed atomic.Int32
			open := func(c tun.Config) (tun.Device, tun.Offload, error) {
				level := tt.gets[c.MTU]
				if c.Offload != tun.Auto {
					level = min(level, c.Offload)
				}
				m, err := tuntest.NewMemory(c.Name, 1, 1)
				return closing{m, &closed}, level, err
			}
			plan := make([]tun.Config, len(tt.gets))
			for i := range plan {
				plan[i] = tun.Config{Name: "eth0", MTU: i}
			}
			devices, level, err := openDevices(open, plan, tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if level != tt.common || int(closed.Load()) != tt.reopened {
				t.Errorf("level %v with %d reopened, want %v with %d", level, closed.Load(), tt.common, tt.reopened)
			}
			if err := closeDevices(devices); err != nil || int(closed.Load()) != tt.reopened+len(plan) {
				t.Errorf("%d closed, %v", closed.Load(), err)
			}
		})
	}
}

func TestDevicesThatWereOpenedAreClosedWhenOneFails(t *testing.T) {
	opened := 0
	var closed atomic.Int32
	open := func(c tun.Config) (tun.Device, tun.Offload, error) {
		if opened == 2 {
			return nil, tun.Off, errors.New("no more")
		}
		opened++
		m, err := tuntest.NewMemory(c.Name, 1, 1)
		return closing{m, &closed}, tun.USO, err
	}
	_, _, err := openDevices(open, make([]tun.Config, 3), tun.Auto)
	if err == nil || !strings.Contains(err.Error(), "attachments[2]: no more") || closed.Load() != 2 {
		t.Errorf("%d closed, %v", closed.Load(), err)
	}
}

// The kernel prefers the routes of the device that came first, so a namespace gets its devices in the order of the attachments.
// Another namespace does not wait for that: here each waits for the other one.
func TestNamespacesGetTheirDevicesAtATimeAndInOrder(t *testing.T) {
	plan := []tun.Config{{Namespace: "a"}, {Namespace: "b"}, {Namespace: "a"}, {Namespace: "b"}, {Namespace: "a"}}
	began := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
	other := map[string]string{"a": "b", "b": "a"}
	order := map[string]*[]int{"a": {}, "b": {}}
	err := byNamespace(plan, func(i int) error {
		namespace := plan[i].Namespace
		if list := order[namespace]; len(*list) == 0 {
			close(began[namespace])
			<-began[other[namespace]]
		}
		*order[namespace] = append(*order[namespace], i)
		return nil
	})
	if a, b := *order["a"], *order["b"]; err != nil || !slices.Equal(a, []int{0, 2, 4}) || !slices.Equal(b, []int{1, 3}) {
		t.Errorf("a got %v, b got %v, %v", a, b, err)
	}
}
