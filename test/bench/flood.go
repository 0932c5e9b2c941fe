package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// flood is a kind of packets that the internet host sends as fast as one thread can,
// while VM1 sends to VM4 over one TCP connection.
type flood struct {
	name string
	// packet is what is sent; vary makes the next one of it. Nil: nothing is sent.
	packet []byte
	vary   func(p []byte, r *rand.Rand)
}

const (
	vm1Address, vm4Address = "10.0.1.4", "10.0.3.4"
	outside                = "11.0.0.0" // varied; the internet is everywhere else
)

// floods are compared with the second, segments of live flows: sender, system calls and
// what many addresses cost the kernels at both ends are the same, so that what is left is what
// the kind itself costs the filter.
func floods() []flood {
	syn := func(to string, port uint16) []byte {
		return packettest.TCP(packettest.Spec{Src: outside, Dst: to, SrcPort: 1, DstPort: port, Flags: "S"})
	}
	udp := packettest.Spec{Src: outside, Dst: vm4Address, SrcPort: 1, DstPort: 9, Payload: 12}
	datagram := udp
	datagram.Payload = 64
	source := func(p []byte, r *rand.Rand) {
		binary.BigEndian.PutUint32(p[12:], 11<<24|r.Uint32()>>8)
		binary.BigEndian.PutUint16(p[20:], uint16(r.Uint32()))
		headerChecksum(p)
	}
	segment := packettest.TCP(packettest.Spec{Src: outside, Dst: vm4Address, SrcPort: 1, DstPort: 80, Flags: "A"})
	return []flood{
		{name: "none"},
		{"segments of 16,384 live flows", segment, func(p []byte, r *rand.Rand) {
			binary.BigEndian.PutUint32(p[12:], 11<<24|r.Uint32()>>18)
			headerChecksum(p)
		}},
		{"SYNs from random sources", syn(vm4Address, 80), source},
		{"UDP from random sources", packettest.UDP(udp), source},
		{"denied SYNs from random sources", syn(vm1Address, 22), source},
		{"later fragments without a first", packettest.Fragments(packettest.UDP(datagram), 1, 40)[1], func(p []byte, r *rand.Rand) {
			binary.BigEndian.PutUint16(p[4:], uint16(r.Uint32()))
			source(p, r)
		}},
		{"first fragments", packettest.Fragments(packettest.UDP(datagram), 1, 40)[0], func(p []byte, r *rand.Rand) {
			binary.BigEndian.PutUint16(p[4:], uint16(r.Uint32()))
			source(p, r)
		}},
	}
}

// headerChecksum makes the checksum of an IPv4 header without options right.
func headerChecksum(p []byte) {
	p[10], p[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
}

// send floods from a namespace's eth0 until ctx ends, and counts what the kernel took.
func (f *flood) send(ctx context.Context, namespace string, sent *atomic.Uint64) error {
	if f.packet == nil {
		<-ctx.Done()
		return nil
	}
	var fd int
	var to unix.SockaddrLinklayer
	err := tun.Do(namespace, func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		request, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); err != nil {
			return err
		}
		to = unix.SockaddrLinklayer{Protocol: 0x0008 /* ETH_P_IP in network order */, Ifindex: int(request.Uint32())}
		return nil
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r := rand.New(rand.NewPCG(1, 2))
	for ctx.Err() == nil {
		for range 256 {
			f.vary(f.packet, r)
			switch err := unix.Sendto(fd, f.packet, 0, &to); err {
			case nil:
				sent.Add(1)
			case unix.ENOBUFS: // the device's queue is full
			default:
				return err
			}
		}
	}
	return nil
}

// onlyFloods are the kinds to measure beside none and the packets of one flow.
var onlyFloods *regexp.Regexp

// floodResult is one measurement.
type floodResult struct {
	bps, packets float64    // of the stream; of the flood, a second
	memory       [3]float64 // resident kB of the daemon before, at half-time and after
}

// runFloods measures every flood in turn, rounds times.
func runFloods(binary string, rounds, seconds int) error {
	if err := privateWorld(); err != nil {
		return err
	}
	list := floods()
	list = slices.DeleteFunc(list, func(f flood) bool {
		return f.packet != nil && f.name != list[1].name && !onlyFloods.MatchString(f.name)
	})
	results := make([][]floodResult, len(list))
	for range rounds {
		for i := range list {
			r, err := measureFlood(&list[i], binary, seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", list[i].name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	reportFloods(list, results, seconds)
	return nil
}

func measureFlood(f *flood, binary string, seconds int) (result floodResult, err error) {
	n, err := labDaemon(binary)
	if err != nil {
		return result, err
	}
	defer n.stop()
	// The targets stay silent: what is measured is the filter, not their kernels' answers.
	for _, namespace := range []string{"nsgd-vm1", "nsgd-vm4"} {
		if err := script(`
			ip netns exec ` + namespace + ` nft add table ip silent
			ip netns exec ` + namespace + ` nft add chain ip silent input {type filter hook input priority 0;}
			ip netns exec ` + namespace + ` nft add rule ip silent input ip saddr 11.0.0.0/8 drop
		`); err != nil {
			return result, err
		}
	}
	memory := func(i int) (err error) {
		result.memory[i], err = residentMemory(n.pid)
		return err
	}
	if err := memory(0); err != nil {
		return result, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sent atomic.Uint64
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- f.send(ctx, "nsgd-internet", &sent) }()
	half := make(chan error, 1)
	timer := time.AfterFunc(time.Duration(seconds)*time.Second/2, func() { half <- memory(1) })
	defer timer.Stop()
	stream, err := iperf(n, nil, seconds)
	if err != nil {
		return result, err
	}
	result.bps = stream.bps
	result.packets = float64(sent.Load()) / time.Since(began).Seconds()
	cancel()
	if err := <-done; err != nil {
		return result, err
	}
	if err := <-half; err != nil {
		return result, err
	}
	return result, memory(2)
}

// residentMemory is that of a process, in kB.
func residentMemory(pid int) (kB float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "VmRSS: %g kB", &kB); n == 1 {
			return kB, nil
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// reportFloods prints medians; the ratio is to the second flood.
func reportFloods(list []flood, results [][]floodResult, seconds int) {
	bps := func(i int) float64 {
		var v []float64
		for _, r := range results[i] {
			v = append(v, r.bps)
		}
		return median(v)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "medians of %d rounds of %d s\tTCP 1 stream\tratio\tflood\tmemory before\thalf-time\tafter\t\n", len(results[0]), seconds)
	for i := range list {
		var packets []float64
		var memory [3][]float64
		for _, r := range results[i] {
			packets = append(packets, r.packets)
			for j := range memory {
				memory[j] = append(memory[j], r.memory[j])
			}
		}
		fmt.Fprintf(w, "%s\t%.2f Gbit/s\t%.2f\t%.0f packets/s\t%.0f MB\t%.0f MB\t%.0f MB\t\n", list[i].name, bps(i)/1e9,
			bps(i)/bps(1), median(packets), median(memory[0])/1e3, median(memory[1])/1e3, median(memory[2])/1e3)
	}
	w.Flush()
	fmt.Printf("ratio: to %q\n", list[1].name)
}
