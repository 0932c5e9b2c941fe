package steer

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun/program"
	"golang.org/x/sys/unix"
)

// object is programs.c, compiled by `go generate`. The build needs no compiler for it.
//
//go:generate ../objecttest/compile
//go:embed programs.o
var object []byte

// programs are the loaded program and its maps.
type programs struct {
	Steer    *ebpf.Program `ebpf:"nsgd_steer"`
	Settings *ebpf.Map     `ebpf:"nsgd_settings"`
	Flows    *ebpf.Map     `ebpf:"nsgd_flows"`
	Counts   *ebpf.Map     `ebpf:"nsgd_arrivals"`
}

// The structs of programs.c.
type (
	settingsEntry struct{ Workers, Key, Step uint32 }
	flowEntry     struct{ Seen, BulkUntil, Level uint64 }
)

// loaded is what this process has loaded: all devices share it. Guarded by mu.
var (
	mu     sync.Mutex
	loaded = map[settingsEntry]*programs{}
)

// MaxWorkers bounds the workers of a device.
const MaxWorkers = 128

// golden spreads numbers that follow one another evenly: it is 2^32 by the golden ratio.
const golden = 0x9e3779b9

// settings are those for some workers and a key: whoever does not know it can't choose addresses that share a place or a
// worker. Ports of one sum share a worker.
func settings(workers int, key uint64) settingsEntry {
	return settingsEntry{uint32(workers), uint32(key), golden + uint32(key>>32)%(golden>>12)&^1}
}

// Queues has the kernel choose a queue of a TUN device for each packet. The device has two for each worker: the first half
// of the queues is for bulk flows, the second half for sparse ones. queue is the descriptor of any of them. Give all devices
// the same key, and keep it in the next process: both ways of a flow are then one worker's. The kernel keeps the program as
// long as the device. It returns the counts that the program keeps.
// Safe for concurrent use. The error is errors.ErrUnsupported where the kernel lacks something (it has all since 5.5), and
// fs.ErrPermission without CAP_BPF or CAP_SYS_ADMIN.
func Queues(queue, workers int, key uint64) (*Arrivals, error) {
	mu.Lock()
	defer mu.Unlock()
	s := settings(workers, key)
	p := loaded[s]
	if p == nil {
		var err error
		if p, err = load(s); err != nil {
			return nil, err
		}
		loaded[s] = p
	}
	arrivals, err := p.arrivals()
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(queue, unix.TUNSETSTEERINGEBPF, p.Steer.FD()); err != nil {
		return nil, fmt.Errorf("steering: %w", os.NewSyscallError("TUNSETSTEERINGEBPF", err))
	}
	return arrivals, nil
}

func load(s settingsEntry) (*programs, error) {
	p := &programs{}
	if err := program.Load(&program.Wanted{Object: object, Rights: "root, or CAP_BPF"}, p); err != nil {
		return nil, fmt.Errorf("steering: %w", err)
	}
	if err := p.Settings.Put(uint32(0), s); err != nil {
		return nil, errors.Join(fmt.Errorf("steering: %w", err), program.Close(p))
	}
	return p, nil
}
