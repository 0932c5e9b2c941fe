package tun

import (
	"net"
	"testing"
)

func BenchmarkPollerWait(b *testing.B) {
	ready := make([]int, 0, 8)
	b.Run("one of 8 queues ready", func(b *testing.B) {
		queues := newEventQueues(b, 8)
		p := newPoller(b, asQueues(queues))
		queues[5].inject()
		b.ReportAllocs()
		for b.Loop() {
			ready, _, _ = p.Wait(-1, ready, nil)
		}
	})
	b.Run("nothing ready, without blocking", func(b *testing.B) {
		p := newPoller(b, asQueues(newEventQueues(b, 8)))
		b.ReportAllocs()
		for b.Loop() {
			ready, _, _ = p.Wait(0, ready, nil)
		}
	})
	b.Run("woken by the same goroutine", func(b *testing.B) {
		p := newPoller(b, asQueues(newEventQueues(b, 8)))
		b.ReportAllocs()
		for b.Loop() {
			p.Wake()
			ready, _, _ = p.Wait(-1, ready, nil)
		}
	})
}

// One small packet from the namespace through Read and back in through Write, the
// system calls of its socket not counted apart.
func BenchmarkDeviceReadAndWrite(b *testing.B) {
	for _, offload := range []Offload{Auto, Off} {
		b.Run(offload.String(), func(b *testing.B) {
			conn, q := benchmarkDevice(b, offload)
			payload, buf := make([]byte, 64), make([]byte, BufferLen)
			b.ReportAllocs()
			for b.Loop() {
				conn.Write(payload)
				n, err := q.Read(buf)
				if err != nil {
					b.Fatal(err)
				}
				// The kernel drops it: the source is the namespace's own address.
				if err := q.Write(buf[:n]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDeviceReadWithNothingWaiting(b *testing.B) {
	_, q := benchmarkDevice(b, Auto)
	buf := make([]byte, BufferLen)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := q.Read(buf); err != ErrAgain {
			b.Fatal(err)
		}
	}
}

// benchmarkDevice gives a UDP socket whose datagrams come out of the queue.
func benchmarkDevice(b *testing.B, offload Offload) (net.Conn, Queue) {
	b.Helper()
	s := newState(b)
	name := uniqueName()
	d, _ := openDevice(b, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Addresses: prefixes("10.0.0.1/24"), Offload: offload})
	var conn net.Conn
	inside(b, name, func() (err error) {
		conn, err = net.Dial("udp", "10.0.0.2:9")
		return err
	})
	b.Cleanup(func() { conn.Close() })
	return conn, d.Queues()[0]
}

func BenchmarkStats(b *testing.B) {
	needRoot(b)
	d, _ := openDevice(b, Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true})
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := d.Stats(); !ok {
			b.Fatal("no statistics")
		}
	}
}
