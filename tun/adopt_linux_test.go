package tun

import (
	"errors"
	"os"
	"testing"

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
		files = append(files, os.NewFile(uintptr(fd), d.Name()))
	}
	return files
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
	next, again, err := Adopt(is)
	if err != nil || again != level || next.MTU() != 1400 {
		t.Fatalf("level %v, mtu %d, %v", again, next.MTU(), err)
	}
	checkInterface(t, was.Namespace, was)
	is.Adopt = nil
	if err := Configure(next, is); err != nil || next.MTU() != 1300 {
		t.Fatalf("mtu %d, %v", next.MTU(), err)
	}
	checkInterface(t, was.Namespace, is)
	for _, d := range []Device{first, next} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := Configure(next, is); !errors.Is(err, os.ErrClosed) {
		t.Errorf("configured after its end: %v", err)
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
		"another namespace":     func(c *Config) { c.Namespace = "" },
		"another kind of queue": func(c *Config) { c.Offload = Off },
	} {
		t.Run(name, func(t *testing.T) {
			c := one
			c.CreateNamespace, c.Adopt = false, left(t, first)
			change(&c)
			if d, _, err := Adopt(c); !errors.Is(err, ErrNotAdopted) {
				t.Errorf("%v, %v", d, err)
			}
		})
	}
}
