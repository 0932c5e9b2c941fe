package tun

import (
	"net"
	"testing"
)

func TestReadWriteAndWaitAllocateNothing(t *testing.T) {
	for _, offload := range []Offload{Auto, Off} {
		t.Run(offload.String(), func(t *testing.T) {
			s := newState(t)
			name := uniqueName()
			d, _ := openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Addresses: prefixes("10.0.0.1/24"), Offload: offload})
			p := newPoller(t, d.Queues())
			var conn net.Conn
			inside(t, name, func() (err error) {
				conn, err = net.Dial("udp", "10.0.0.2:9")
				return err
			})
			defer conn.Close()
			q, payload, buf, ready := d.Queues()[0], make([]byte, 100), make([]byte, BufferLen), make([]int, 0, 1)
			checkAllocs(t, func() {
				conn.Write(payload)
				ready, _, _ = p.Wait(-1, ready, nil)
				n, err := q.Read(buf)
				if err != nil || q.Write(buf[:n]) != nil {
					t.Fatal("not passed")
				}
				for err == nil { // what the kernel may answer
					_, err = q.Read(buf)
				}
				ready, _, _ = p.Wait(0, ready, nil)
			})
		})
	}
}

func checkAllocs(t *testing.T, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(200, f); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
}
