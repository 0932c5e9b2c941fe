package tun

import (
	"bytes"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"golang.org/x/sys/unix"
)

// socketQueue is an offload queue whose kernel is a socket: it refuses nothing, and
// written gives what was written.
func socketQueue(t *testing.T) (q *offloadQueue, written func() [][]byte) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	q = &offloadQueue{descriptor: descriptor{fd: pair[0]}, level: USO}
	t.Cleanup(func() {
		q.close()
		unix.Close(pair[1])
	})
	return q, func() (all [][]byte) {
		b := make([]byte, BufferLen)
		for {
			n, err := unix.Read(pair[1], b)
			if err != nil {
				return all
			}
			all = append(all, bytes.Clone(b[:n]))
		}
	}
}

func udpSuperpacket(payload int, size uint16) []byte {
	p := packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", SrcPort: 1, DstPort: 2, Payload: payload})
	return packettest.Superpacket(p, GSOUDPL4, size)
}

func TestOnceRefusedSuperpacketsOfAKindGoInPiecesForAWhile(t *testing.T) {
	q, written := socketQueue(t)
	q.udp.refused = refusals
	if q.Offload() != TSO {
		t.Errorf("the queue takes %v", q.Offload())
	}
	frame := udpSuperpacket(300, 100)
	if err := q.WriteParts([][]byte{frame[:50], frame[50:]}); err != nil {
		t.Fatal(err)
	}
	if got := written(); len(got) != 3 || len(got[0]) != HeaderLen+28+100 {
		t.Errorf("%d frames", len(got))
	}
	p := packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", Flags: "A", Payload: 300})
	if err := q.Write(packettest.Superpacket(p, GSOTCPv4, 100)); err != nil {
		t.Fatal(err)
	}
	if got := written(); len(got) != 1 {
		t.Errorf("TCP, which was not refused: %d frames", len(got))
	}
	for range respite {
		if err := q.Write(udpSuperpacket(20, 10)); err != nil {
			t.Fatal(err)
		}
		written()
	}
	if q.Offload() != USO {
		t.Errorf("after %d in pieces the queue takes %v", respite, q.Offload())
	}
}

func TestAnOrdinaryPacketInPartsGoesThoughSuperpacketsAreRefused(t *testing.T) {
	q, written := socketQueue(t)
	q.udp.refused, q.tcp.refused = refusals, refusals
	frame := append(make([]byte, HeaderLen), packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", Payload: 100})...)
	err := q.WriteParts([][]byte{frame[:60], frame[60:]})
	if got := written(); err != nil || len(got) != 1 || !bytes.Equal(got[0], frame) {
		t.Errorf("%v, %d frames", err, len(got))
	}
}

func TestOnlySoundSuperpacketsCountAsRefused(t *testing.T) {
	q, _ := socketQueue(t)
	frame := udpSuperpacket(300, 100)
	frame[0] = 0 // a finished checksum
	for range 2 * refusals {
		if err := q.writePieces(&q.udp, frame); err != ErrFrame {
			t.Fatal(err)
		}
	}
	if q.Offload() != USO {
		t.Errorf("the queue takes %v", q.Offload())
	}
}

func TestASuperpacketEndsWhereItsIPLengthSays(t *testing.T) {
	frame := udpSuperpacket(1000, 500)
	want := packettest.Segments(bytes.Clone(frame[HeaderLen:]), 500)
	q, written := socketQueue(t)
	q.udp.refused = refusals
	if err := q.Write(append(frame, make([]byte, 600)...)); err != nil {
		t.Fatal(err)
	}
	got := written()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i][HeaderLen:], want[i]) {
			t.Errorf("packet %d:\n got %x\nwant %x", i, got[i][HeaderLen:], want[i])
		}
	}
}
