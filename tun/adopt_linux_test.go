package tun

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// left are the queues of a device, as another process gets them.
func left(t *testing.T, d Device) (files []*os.File) {
	t.Helper()
	for _, q := range d.Queues() {
		fd, err := unix.FcntlInt(uintptr(q.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), d.Name())
		t.Cleanup(func() { f.Close() }) // else garbage collection closes it while a later test counts
		files = append(files, f)
	}
	return files
}

// opened is Open in another process.
func opened(c Config) (Device, Offload, error) {
	d, level, err := Open(c)
	if err != nil {
		return nil, level, err
	}
	descriptors, h, err := HandOver(d)
	if err != nil {
		return nil, level, errors.Join(err, d.Close())
	}
	held, err := TakeOver(c, h, descriptors, d.(Remote))
	return held, level, err
}

func TestAnAdoptedDeviceStaysAsItIsUntilItIsConfigured(t *testing.T) {
	s := newState(t)
	was := Config{
		Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Queues: 2,
		Addresses: prefixes("10.0.1.4/24", "fd00:1::4/64"), Routes: prefixes("0.0.0.0/0", "::/0"), MTU: 1400, TxQueueLen: 1234, Loopback: true,
	}
	first, level := openDevice(t, was)
	is := was
	is.MTU, is.TxQueueLen, is.Addresses, is.Adopt = 1300, 2345, prefixes("10.0.1.5/24", "fd00:1::5/64"), left(t, first)
	next, again, err := Adopt(is, opened)
	if err != nil || again != level {
		t.Fatalf("level %v, %v", again, err)
	}
	checkInterface(t, was.Namespace, was)
	if _, ok := next.Stats(); ok {
		t.Error("it has counters before anybody has opened them")
	}
	is.Adopt = nil
	if err := Configure(next, is); err != nil || next.MTU() != 1300 {
		t.Fatalf("mtu %d, %v", next.MTU(), err)
	}
	checkInterface(t, was.Namespace, is)
	if _, ok := next.Stats(); !ok {
		t.Error("it has no counters")
	}
	for _, d := range []Device{first, next} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := Configure(next, is); !errors.Is(err, os.ErrClosed) {
		t.Errorf("configured after its end: %v", err)
	}
}

// The queues carry packets before anybody configures the device. It once asked them for their level beside their workers,
// and failed when that was lower by then.
func TestADeviceIsConfiguredWhateverItsQueuesMeetMeanwhile(t *testing.T) {
	is := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: newState(t), Addresses: prefixes("10.0.1.4/24"), Loopback: true, Queues: 2, Steer: 1}
	first, _ := openDevice(t, is)
	is.Adopt = left(t, first)
	next, level, err := Adopt(is, opened)
	if err != nil || level == Off {
		t.Fatalf("level %v, %v", level, err)
	}
	q := next.Queues()[0].(*offloadQueue)
	if q.tcp.refused = refusals; q.Offload() != Off {
		t.Fatalf("the queue takes %v", q.Offload())
	}
	is.Adopt = nil
	if err := Configure(next, is); err != nil {
		t.Error(err)
	}
	arrivals(t, next) // its queue of sparse flows knows of them now
	for _, d := range []Device{first, next} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestQueuesOfAnotherDeviceAreNotAdopted(t *testing.T) {
	s := newState(t)
	one := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Queues: 2}
	first, _ := openDevice(t, one)
	defer first.Close()
	for name, change := range map[string]func(*Config){
		"no queue":              func(c *Config) { c.Adopt = nil },
		"fewer queues":          func(c *Config) { c.Adopt = left(t, first)[:1] },
		"another name":          func(c *Config) { c.Name = "eth1" },
		"another kind of queue": func(c *Config) { c.Offload = Off },
	} {
		t.Run(name, func(t *testing.T) {
			c := one
			c.CreateNamespace, c.Adopt = false, left(t, first)
			change(&c)
			if d, _, err := Adopt(c, opened); !errors.Is(err, ErrNotAdopted) {
				t.Errorf("%v, %v", d, err)
			}
		})
	}
}

func TestADeviceElsewhereIsNotConfigured(t *testing.T) {
	s := newState(t)
	one := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: s, Queues: 2}
	first, _ := openDevice(t, one)
	defer first.Close()
	elsewhere := one
	elsewhere.Namespace, elsewhere.CreateNamespace, elsewhere.Adopt = "", false, left(t, first)
	d, _, err := Adopt(elsewhere, opened)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	elsewhere.Adopt = nil
	if err := Configure(d, elsewhere); !errors.Is(err, ErrNotAdopted) {
		t.Errorf("%v, want %v", err, ErrNotAdopted)
	}
}

func TestNoQueueingDisciplineHoldsPackets(t *testing.T) {
	c := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, Queues: 2}
	d, _ := openDevice(t, c)
	defer d.Close()
	err := Do(c.Namespace, func() error {
		link, err := netlink.LinkByName(c.Name)
		if err != nil {
			return err
		}
		list, err := netlink.QdiscList(link)
		if err == nil && (len(list) != 1 || list[0].Type() != "noqueue") {
			err = fmt.Errorf("%d queueing disciplines: %v", len(list), list)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
