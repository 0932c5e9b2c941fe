package tun

import (
	"net"
	"testing"
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
			conn.Write(make([]byte, 16))
			sparse := queueOf(t, d, buf)
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
	defer next.Close()
	check(next)
}

func TestAnOddNumberOfQueuesCanNotBeSteered(t *testing.T) {
	if _, err := (Config{Name: "eth0", Queues: 3, Steer: 1}).withDefaults(); err == nil {
		t.Error("three queues were taken")
	}
}
