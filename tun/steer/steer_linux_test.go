package steer

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

var testKey = rand.Uint64()

// start loads the program for some workers, for a test that runs it as the kernel does.
func start(t *testing.T, workers int) *programs {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to load a program")
	}
	p, err := load(settings(workers, testKey))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Steer.Close()
		p.Settings.Close()
		p.Flows.Close()
		p.Counts.Close()
	})
	return p
}

// queue is the one that the program chooses for a packet. The kernel wants an Ethernet header before it, and takes it off.
func (p *programs) queue(t *testing.T, packet []byte) int {
	t.Helper()
	ethertype := []byte{0x08, 0x00}
	switch {
	case len(packet) < 20 || packet[0]>>4 == 6 && len(packet) < 40: // the kernel refuses to test it as IP
		ethertype = []byte{0x88, 0xb5}
	case packet[0]>>4 == 6:
		ethertype = []byte{0x86, 0xdd}
	}
	got, _, err := p.Steer.Test(append(append(make([]byte, 12), ethertype...), packet...))
	if err != nil {
		t.Fatal(err)
	}
	return int(got)
}

// forget has the program know no flow.
func (p *programs) forget(t *testing.T) {
	t.Helper()
	for place := range p.Flows.MaxEntries() {
		if err := p.Flows.Put(place, flowEntry{}); err != nil {
			t.Fatal(err)
		}
	}
}

func mixed(x uint32) uint32 {
	x = (x ^ x>>16) * 0x7feb352d
	x = (x ^ x>>15) * 0x846ca68b
	return x ^ x>>16
}

// word is 32 bits as the kernel has them in a register of a little-endian machine.
func word(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

func folded(b []byte) uint32 {
	return mixed(mixed(mixed(word(b))+word(b[4:]))+word(b[8:])) + word(b[12:])
}

// workerOf says again whose a packet is.
func workerOf(packet []byte, workers int) int {
	src, dst, protocol, ports := word(packet[12:]), word(packet[16:]), packet[9], int(packet[0]&0xf)*4
	if packet[0]>>4 == 6 {
		src, dst, protocol, ports = folded(packet[8:24]), folded(packet[24:40]), packet[6], 40
	} else if binary.BigEndian.Uint16(packet[6:])&0x3fff != 0 {
		protocol = 0
	}
	var sum uint32
	if (protocol == 6 || protocol == 17) && len(packet) >= ports+4 {
		sum = uint32(binary.BigEndian.Uint16(packet[ports:])) + uint32(binary.BigEndian.Uint16(packet[ports+2:]))
	}
	s := settings(workers, testKey)
	both := mixed(mixed(src^s.Key)+mixed(dst^s.Key)) + sum*s.Step
	return int(uint64(both) * uint64(workers) >> 32)
}

func TestBothWaysOfAFlowAreOneWorkers(t *testing.T) {
	const workers = 7
	p := start(t, workers)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	addresses := [][2]string{{"10.0.1.4", "10.0.2.5"}, {"203.0.113.9", "10.0.1.4"}, {"fd00::1:4", "2001:db8::77"}}
	for range 2000 {
		s := packettest.Spec{SrcPort: uint16(random.Uint32()), DstPort: uint16(random.Uint32()), Payload: random.IntN(200), Flags: "A"}
		pair := addresses[random.IntN(len(addresses))]
		s.Src, s.Dst = pair[0], pair[1]
		build := packettest.TCP
		if random.IntN(2) == 0 {
			build = packettest.UDP
		}
		there := build(s)
		s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
		back := build(s)
		if random.IntN(8) == 0 && there[0]>>4 == 4 { // fragments have no ports
			there[6] |= 0x20
			back[7] |= 0x10
		}
		if random.IntN(8) == 0 { // cut off within the ports
			there, back = there[:22], back[:22]
			if there[0]>>4 == 6 {
				continue
			}
		}
		want := workerOf(there, workers)
		if got, answer := p.queue(t, there)%workers, p.queue(t, back)%workers; got != want || answer != want {
			t.Fatalf("seed %d: %+v: queue %d there, %d back, want %d", seed, s, got, answer, want)
		}
	}
}

// Packets of sparse flows, and no others, are counted for their worker, in memory that another process sees too.
func TestPacketsOfSparseFlowsAreCounted(t *testing.T) {
	const workers = 3
	p := start(t, workers)
	p.forget(t)
	mu.Lock()
	a, err := p.arrivals()
	mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	fd, number, err := a.Descriptor()
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	delete(mapped, number) // as in another process
	mu.Unlock()
	there, err := ReceiveArrivals(fd, number)
	if err != nil {
		t.Fatal(err)
	}
	fd, number, err = a.Descriptor()
	if again, failed := ReceiveArrivals(fd, number); err != nil || failed != nil || again != there {
		t.Errorf("the second time: %p and %p, %v, %v", again, there, err, failed)
	}
	var want [workers]uint64
	bulk := 0
	for i := range uint16(300) { // 30 flows of ten packets, 6 KB or 36 KB each
		q := p.queue(t, packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.5", SrcPort: 1000 + i/10, DstPort: 53, Payload: 600 * int(1+i/10%2*5)}))
		if q >= workers {
			want[q-workers]++
		} else {
			bulk++
		}
	}
	if bulk == 0 {
		t.Error("no flow became a bulk flow")
	}
	for i, n := range want {
		if here, other := a.Of(i).Load(), there.Of(i).Load(); here != n || other != n || n == 0 {
			t.Errorf("worker %d: %d are counted, %d seen elsewhere, of %d", i, here, other, n)
		}
	}
}

func TestParallelConnectionsAreSpreadEvenly(t *testing.T) {
	for _, workers := range []int{2, 4, 8, 16} {
		p := start(t, workers)
		for from := range uint16(50) {
			of := make([]int, workers)
			for i := range uint16(2 * workers) {
				of[p.queue(t, packettest.TCP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.5", SrcPort: 32768 + 600*from + 2*i, DstPort: 5201, Flags: "S"}))%workers]++
			}
			if most := slices.Max(of); most > 4 { // by chance alone one of 16 workers has more than twice the mean in most cases
				t.Errorf("%d connections from port %d: %v", 2*workers, 32768+600*from, of)
			}
		}
	}
}

func TestFlowsThatSendMuchAreNotSparse(t *testing.T) {
	p := start(t, 2)
	p.forget(t)
	spec := packettest.Spec{Src: "10.0.1.4", Dst: "10.0.2.5", SrcPort: 40000, DstPort: 80, Flags: "A", Payload: 1000}
	packet := packettest.TCP(spec)
	for sent := 0; ; sent += len(packet) {
		bulk := p.queue(t, packet) < 2
		if bulk && sent+len(packet) <= 16384 {
			t.Fatalf("bulk after %d bytes", sent)
		}
		if bulk {
			break
		}
		if sent > 64<<20 { // it forgets 7.8 MB a second, and a machine is not that slow
			t.Fatal("never bulk")
		}
	}
	if p.queue(t, packettest.TCP(packettest.Spec{Src: spec.Src, Dst: spec.Dst, SrcPort: 40000, DstPort: 80, Flags: "F"})) >= 2 {
		t.Error("the last packet of a bulk flow overtakes its others")
	}
	answer := packettest.TCP(packettest.Spec{Src: spec.Dst, Dst: spec.Src, SrcPort: 80, DstPort: 40000, Flags: "A"})
	if p.queue(t, answer) < 2 {
		t.Error("the way back, which sends little, is not sparse")
	}
	// Long ago, as the kernel's clock has it, is the start of the machine: the flow has been silent since.
	var e flowEntry
	found := false
	for place := range p.Flows.MaxEntries() {
		if err := p.Flows.Lookup(place, &e); err != nil {
			t.Fatal(err)
		}
		if e.BulkUntil != 0 {
			found = true
			if err := p.Flows.Put(place, flowEntry{Seen: 1, BulkUntil: 1, Level: e.Level}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found || p.queue(t, packet) < 2 {
		t.Error("a flow that was silent is not sparse again")
	}
}

func TestASuperpacketIsNotSparse(t *testing.T) {
	p := start(t, 2)
	p.forget(t)
	if q := p.queue(t, packettest.UDP(packettest.Spec{Src: "fd00::1", Dst: "fd00::2", SrcPort: 1, DstPort: 2, Payload: 1200})); q < 2 {
		t.Errorf("queue %d for a first datagram", q)
	}
	large := packettest.UDP(packettest.Spec{Src: "fd00::1", Dst: "fd00::2", SrcPort: 1, DstPort: 2, Payload: 3000})
	for sent := 0; p.queue(t, large) >= 2; sent += len(large) {
		if sent > 64<<20 { // it forgets 7.8 MB a second, and a machine is not that slow
			t.Fatal("never bulk")
		}
	}
}

// What is no packet goes to the first queue, where the engine drops it.
func TestWhatIsNoPacketHasAQueue(t *testing.T) {
	p := start(t, 3)
	for _, packet := range [][]byte{{0x45}, make([]byte, 19), append([]byte{0x60}, make([]byte, 30)...), make([]byte, 64)} {
		if q := p.queue(t, packet); q < 0 || q >= 6 {
			t.Errorf("%d bytes: queue %d", len(packet), q)
		}
	}
}
