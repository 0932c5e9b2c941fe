package steer

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arrivalsEntry is the struct of programs.c.
type arrivalsEntry struct {
	packets atomic.Uint64
	_       [7]uint64
}

// Arrivals are the packets that were steered to queues of sparse flows, by worker. The kernel counts them in memory that this
// process sees: a worker need not ask the kernel whether there are any.
// Safe for concurrent use. It stays until the process ends.
type Arrivals struct {
	id     uint32
	fd     int // of the map, as it came; the kernel's memory needs it no more
	memory *[MaxWorkers]arrivalsEntry
}

// mapped are those of this process, by the numbers of their maps. Guarded by mu.
var mapped = map[uint32]*Arrivals{}

// Of counts the packets of a worker since the program was loaded, also those that are not in a queue yet or had no room there.
func (a *Arrivals) Of(worker int) *atomic.Uint64 { return &a.memory[worker].packets }

// Descriptor is another descriptor of the counts, for ReceiveArrivals in another process, and their number there.
func (a *Arrivals) Descriptor() (fd int, id uint32, err error) {
	fd, err = unix.FcntlInt(uintptr(a.fd), unix.F_DUPFD_CLOEXEC, 0)
	return fd, a.id, os.NewSyscallError("fcntl", err)
}

// ReceiveArrivals are those of a descriptor that Descriptor gave in another process. It needs no privilege, and takes the
// descriptor.
func ReceiveArrivals(fd int, id uint32) (*Arrivals, error) {
	mu.Lock()
	defer mu.Unlock()
	if a := mapped[id]; a != nil {
		return a, os.NewSyscallError("close", unix.Close(fd))
	}
	return mapArrivals(fd, id)
}

// arrivals are those of a loaded program. The caller holds mu.
func (p *programs) arrivals() (*Arrivals, error) {
	info, err := p.Counts.Info()
	if err != nil {
		return nil, fmt.Errorf("steering: %w", err)
	}
	number, _ := info.ID()
	id := uint32(number)
	if a := mapped[id]; a != nil {
		return a, nil
	}
	fd, err := unix.FcntlInt(uintptr(p.Counts.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return mapArrivals(fd, id)
}

// mapArrivals takes the descriptor. The caller holds mu.
func mapArrivals(fd int, id uint32) (*Arrivals, error) {
	memory, err := unix.Mmap(fd, 0, int(unsafe.Sizeof([MaxWorkers]arrivalsEntry{})), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("steering: %w", os.NewSyscallError("mmap", err))
	}
	a := &Arrivals{id: id, fd: fd, memory: (*[MaxWorkers]arrivalsEntry)(unsafe.Pointer(unsafe.SliceData(memory)))}
	mapped[id] = a
	return a, nil
}
