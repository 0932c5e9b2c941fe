package tun

import (
	"net"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/tun/steer"
	"golang.org/x/sys/unix"
)

// queueOf is the queue in which a packet waits; -1: none does.
func queueOf(t *testing.T, d Device, buf []byte) int {
	t.Helper()
	at := -1
	for i, q := range d.Queues() {
		for {
			_, err := q.Read(buf)
			if err == ErrAgain {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			at = i
		}
	}
	return at
}

// arrivals are the packets of sparse flows of all workers that a device's queues know of. All of its count, and no others do.
func arrivals(t *testing.T, d Device) (packets uint64) {
	t.Helper()
	workers := len(d.Queues()) / 2
	for i, q := range d.Queues() {
		count := q.(Counted).Arrivals()
		if (count != nil) != (i >= workers) {
			t.Fatalf("queue %d: counted %t", i, count != nil)
		}
		if count != nil {
			packets += count.Load()
		}
	}
	return packets
}

// The second half of the queues is that of sparse flows, in a new device and in one that another process goes on with.
func TestSparseFlowsHaveQueuesOfTheirOwn(t *testing.T) {
	name := uniqueName()
	c := Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: newState(t), Addresses: prefixes("10.0.0.1/24"), Queues: 6, Steer: 12345}
	c.Warn = func(err error) { t.Error(err) }
	d, _ := openDevice(t, c)
	buf := make([]byte, BufferLen)
	check := func(d Device) {
		t.Helper()
		shared := 0   // flows whose place is a bulk flow's: one of some hundred runs meets one
		for range 8 { // flows
			var conn net.Conn
			inside(t, name, func() (err error) {
				conn, err = net.Dial("udp", "10.0.0.2:9")
				return err
			})
			before := arrivals(t, d)
			conn.Write(make([]byte, 16))
			sparse := queueOf(t, d, buf)
			if n := arrivals(t, d) - before; sparse >= 3 && n == 0 { // the kernel sends some of its own too
				t.Errorf("%d packets were counted, and one waited in queue %d", n, sparse)
			}
			if sparse >= 0 && sparse < 3 {
				if shared++; shared > 2 {
					t.Fatalf("the first datagrams of %d flows wait in queues of bulk flows", shared)
				}
				conn.Close()
				continue
			}
			bulk, sent := sparse, 0
			for ; bulk == sparse && sent < 100_000; sent++ {
				conn.Write(make([]byte, 1400))
				bulk = queueOf(t, d, buf)
			}
			if bulk != sparse-3 {
				t.Errorf("after %d datagrams of 1,400 bytes a flow of queue %d waits in queue %d", sent, sparse, bulk)
			}
			conn.Close()
		}
	}
	check(d)
	c.Adopt = left(t, d)
	next, _, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	check(next)
	descriptors, h, err := HandOver(next)
	if err != nil {
		t.Fatal(err)
	}
	held, err := TakeOver(c, h, descriptors, next.(Remote))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	check(held)
}

// Where the kernel can't steer, a device has the queues that are not of sparse flows, in this process and in the one that gets
// them, and its user is told.
func TestAKernelThatCanNotSteerLeavesTheOtherQueues(t *testing.T) {
	c := Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, State: newState(t), Addresses: prefixes("10.0.0.1/24"), Queues: 4, Steer: 12345}
	told := ""
	c.Warn = func(err error) { told = err.Error() }
	k := runningKernel()
	k.steer = func(int, int, uint64) (*steer.Arrivals, error) { return nil, unix.EPERM }
	d, level, err := k.open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if len(d.Queues()) != 2 || !strings.Contains(told, "small flows wait behind large ones: operation not permitted") {
		t.Fatalf("%d queues, told %q", len(d.Queues()), told)
	}
	descriptors, h, err := HandOver(d)
	if err != nil {
		t.Fatal(err)
	}
	held, err := TakeOver(c, h, descriptors, d.(Remote))
	if err != nil || len(held.Queues()) != 2 || h.Level != level {
		t.Fatalf("%v, %+v", err, h)
	}
	defer closeQueues(held.Queues())
	var conn net.Conn
	inside(t, c.Namespace, func() (err error) {
		conn, err = net.Dial("udp", "10.0.0.2:9")
		return err
	})
	defer conn.Close()
	conn.Write(make([]byte, 16))
	if queueOf(t, held, make([]byte, BufferLen)) < 0 {
		t.Error("a datagram waits in none of them")
	}
}

func TestAnOddNumberOfQueuesCanNotBeSteered(t *testing.T) {
	if _, err := (Config{Name: "eth0", Queues: 3, Steer: 1}).withDefaults(); err == nil {
		t.Error("three queues were taken")
	}
}
