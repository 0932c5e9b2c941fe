// Package tun is where packets enter and leave nsgd: TUN devices inside network
// namespaces, the namespaces themselves, and the waiting for both.
//
// A [Device] has a [Queue] for each worker, or two: Config.Steer has the second be that of sparse flows. Every backend moves the same bytes: a virtio-net
// [Header] of 10 bytes and one IP packet. So a packet read from any device can be written to
// any other without a copy:
//
//   - offload: the kernel hands over superpackets of up to 64 KiB, with checksums and
//     segmentation left to do, and takes them back that way ([TSO], [USO]);
//   - plain: one wire packet at a time, for kernels or users that refuse the header ([Off]).
//
// Package tuntest has a third backend for tests: rings in this process.
//
// A [Poller] waits for the queues of one worker. A [State] guards a state directory: one daemon
// runs at a time and removes the namespaces that it made, and those of an earlier run that was
// killed.
//
// Devices are not persistent, but for Config.Keep: the kernel removes them when their descriptors close, also
// those of a killed process.
package tun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Errors that callers tell apart. What this package returns wraps them and adds the device, the
// namespace and what to do. A lack of privilege is fs.ErrPermission.
var (
	// ErrAgain from Queue: no packet waits (Read), or the device has no room (Write).
	ErrAgain = errors.New("tun: try again later")
	// ErrFrame from Queue.Write: too short for a header, too long, or a header that points
	// outside the packet or describes no superpacket.
	ErrFrame = errors.New("tun: malformed frame")
	// ErrNoTUN: the machine has no /dev/net/tun.
	ErrNoTUN = errors.New("no TUN support")
	// ErrDeviceExists: the namespace already has a device of that name.
	ErrDeviceExists = errors.New("device exists already")
	// ErrNotAdopted: what an earlier process has left is not the device that is wanted.
	ErrNotAdopted = errors.New("the queues of an earlier process are not this device's")
	// ErrNoNamespace: there is no namespace of that name.
	ErrNoNamespace = errors.New("no such network namespace")
	// ErrNamespaceExists: a namespace to be created is there already, and not made by nsgd.
	ErrNamespaceExists = errors.New("network namespace exists already")
	// ErrConfig: a Config or a name that can't work on any machine.
	ErrConfig = errors.New("invalid configuration")
	// ErrRunning: another daemon uses the state directory. See RunningError.
	ErrRunning = errors.New("already running")
)

// Queue is one queue of a device. One goroutine at a time reads, and one at a time writes; both may at once.
// Device.Close may come at any time and turns both into os.ErrClosed.
type Queue interface {
	// Read takes one packet without blocking: a Header and then the packet, n bytes together.
	// buf should hold BufferLen bytes. It returns ErrAgain when no packet waits, and
	// os.ErrClosed when the device is closed or was removed. epoll reports a removed device as
	// readable for ever: on os.ErrClosed the worker must stop watching the queue.
	Read(buf []byte) (n int, err error)
	// Write sends one packet, laid out as Read delivers it, without blocking. buf is borrowed
	// for the call. A device without offload completes a missing checksum in buf, and sends a
	// superpacket as the packets that it stands for; one with a finished checksum can't be cut.
	//
	// ErrAgain means no room, os.ErrClosed is as for Read. ErrFrame and the kernel's errno mean
	// that this packet can't go; if it was sent in pieces, those before the error have gone.
	Write(buf []byte) error
	// WriteParts is Write for a packet in up to MaxParts parts. The first part holds the Header
	// and all of the packet's own headers. It may overwrite parts where Write may overwrite buf.
	WriteParts(parts [][]byte) error
	// SetSlow says whether writes may take long, because of the receiver's netfilter rules say. Slow ones let
	// the scheduler give the processor to another goroutine, which fast ones can't afford. Call it
	// while nothing is written.
	SetSlow(slow bool)
	// Offload is the level of the superpackets that Write passes on whole. It falls when the
	// kernel has refused several in a row: they then go in pieces for a while.
	Offload() Offload
	// FD is the descriptor to wait for; valid until Close. Only the queue reads or closes it.
	FD() int
}

// Device is one TUN interface. Its methods are safe for concurrent use; its queues
// are each owned by one worker.
type Device interface {
	// Name is the interface's name inside its namespace.
	Name() string
	// Queues are the device's queues, as many as Config asked for.
	Queues() []Queue
	// MTU is the interface's MTU in bytes.
	MTU() int
	// SetAddresses makes these the interface's addresses. It adds what is missing, and removes
	// what Open or an earlier call added and is no longer listed. Other addresses stay.
	SetAddresses([]netip.Prefix) error
	// SetMTU changes the interface's MTU.
	SetMTU(int) error
	// SetRoutes makes these the routes through the interface, in place of those of Config or of an earlier call.
	SetRoutes([]netip.Prefix) error
	// Stats are the interface's counters; ok is false when they can't be read.
	Stats() (s Stats, ok bool)
	// Close ends the device and removes the interface, unless Config.Keep was set.
	Close() error
}

// Stats are an interface's counters as the namespace sees them: what it transmits is
// what Queue.Read delivers, what it receives is what Queue.Write sent.
type Stats struct {
	RxPackets, RxBytes, RxDropped, RxErrors uint64
	TxPackets, TxBytes, TxErrors            uint64
	// TxDropped counts packets that found the queue full: the worker reads too slowly
	// or Config.TxQueueLen is too short.
	TxDropped uint64
}

const (
	// DefaultMTU is used when Config.MTU is 0.
	DefaultMTU = 1500
	// DefaultTxQueueLen is used when Config.TxQueueLen is 0: packets or superpackets
	// that wait for the worker. The kernel's own 500 overflows in bursts of small ones.
	DefaultTxQueueLen = 2048

	// MaxQueues is the kernel's MAX_TAP_QUEUES: the 257th queue gives E2BIG.
	MaxQueues = 256
	// MinMTU is IPv4's smallest. MaxMTU is 65,535 less an Ethernet header, which some
	// kernels leave room for on a TUN device too.
	MinMTU, MaxMTU = 68, 65_521

	// MinMTU6 is the smallest MTU that IPv6 takes (RFC 8200).
	MinMTU6 = 1280

	// A name fills IFNAMSIZ, 16 bytes with its final zero.
	maxNameLen = 15
	// A namespace's name is a file's.
	maxNamespaceLen = 255
)

// Config says what device to open, and where.
type Config struct {
	// Name of the interface, 1 to 15 bytes.
	Name string
	// Namespace is the name of a network namespace as `ip netns` lists it; empty: the
	// process's own.
	Namespace string
	// CreateNamespace makes Namespace. State's Close removes it; without a State the device's
	// Close does.
	CreateNamespace bool
	// State journals a created namespace: the next run removes it if this one is killed.
	// Devices of one State share the namespaces that it made. May be nil.
	State *State `json:"-"`
	// Addresses of the interface, each with the length of its prefix.
	Addresses []netip.Prefix
	// MTU in bytes; 0 means DefaultMTU.
	MTU int
	// Queues is the number of queues, one for each worker or, with Steer, two; 0 means 1.
	Queues int
	// Steer has the second half of the queues be those of sparse flows, one for each worker too, by this key; 0: there are
	// none. Where the kernel can't, Warn is told, and the device has the first half alone. See tun/steer.
	Steer uint64
	// Warn is told what works less well than asked for, before Open returns; nil: nobody is.
	Warn func(error) `json:"-"`
	// Offload is the level to try for; the zero value is Auto.
	Offload Offload
	// Routes through this device, such as 0.0.0.0/0. IPv6 ones need an IPv6 address.
	Routes []netip.Prefix
	// TxQueueLen is the depth of each queue in packets; 0 means DefaultTxQueueLen.
	TxQueueLen int
	// Loopback brings up lo in the namespace.
	Loopback bool
	// Adopt are the queues of this device that an earlier process has left, in order. Open takes them over, or closes them
	// and fails with ErrNotAdopted where they are another device's, or another number or kind of queues.
	Adopt []*os.File `json:"-"`
	// Keep lets the interface outlive the process: Close leaves it. Open takes over one that an earlier run kept.
	Keep bool
}

// KeptAlias is the alias (`ip link`) of interfaces that were opened with Config.Keep.
const KeptAlias = "nsgd"

// withDefaults checks c and sets the defaults.
func (c Config) withDefaults() (Config, error) {
	if err := CheckDeviceName(c.Name); err != nil {
		return c, fmt.Errorf("tun: device: %w: %w", ErrConfig, err)
	}
	if c.Namespace != "" {
		if err := CheckNamespaceName(c.Namespace); err != nil {
			return c, c.errorf("%w: namespace %w", ErrConfig, err)
		}
	} else if c.CreateNamespace {
		return c, c.errorf("%w: a namespace to create needs a name", ErrConfig)
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if err := checkMTU(c.MTU); err != nil {
		return c, c.errorf("%w", err)
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Queues < 0 || c.Queues > MaxQueues {
		return c, c.errorf("%w: %d queues: must be 1 to %d", ErrConfig, c.Queues, MaxQueues)
	}
	if c.Steer != 0 && c.Queues%2 != 0 {
		return c, c.errorf("%w: %d queues: must be two for each worker where they are steered", ErrConfig, c.Queues)
	}
	if c.TxQueueLen == 0 {
		c.TxQueueLen = DefaultTxQueueLen
	}
	if c.TxQueueLen < 0 {
		return c, c.errorf("%w: transmit queue length %d: must not be negative", ErrConfig, c.TxQueueLen)
	}
	if err := checkRoutes(c.Routes); err != nil {
		return c, c.errorf("%w", err)
	}
	return c, checkAddresses(c.Addresses)
}

func checkMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxMTU {
		return fmt.Errorf("%w: mtu %d: must be %d to %d", ErrConfig, mtu, MinMTU, MaxMTU)
	}
	return nil
}

func checkRoutes(routes []netip.Prefix) error {
	for _, p := range routes {
		if !p.IsValid() {
			return fmt.Errorf("%w: route: not a prefix", ErrConfig)
		}
	}
	return nil
}

// errorf puts the device's place before an error.
func (c Config) errorf(format string, args ...any) error {
	return fmt.Errorf("tun: %s: %w", place(c.Namespace, c.Name), fmt.Errorf(format, args...))
}

func place(namespace, device string) string {
	if namespace == "" {
		return fmt.Sprintf("device %q", device)
	}
	return fmt.Sprintf("namespace %q: device %q", namespace, device)
}

// CheckDeviceName says what the kernel has against a name for an interface.
func CheckDeviceName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxNameLen:
		return fmt.Errorf("%q: an interface's name has at most %d bytes", name, maxNameLen)
	case name == "." || name == "..", strings.ContainsAny(name, "/: %\t\n\r\v\f\x00"):
		// The kernel refuses all but %, which it takes for a template.
		return fmt.Errorf("%q: neither . nor .. is an interface's name, nor is one with a space, /, : or %% in it", name)
	}
	return nil
}

// CheckNamespaceName says what is wrong with how a network namespace is named: as `ip netns` lists it, by an
// absolute path, or as pid:N by a process in it.
func CheckNamespaceName(name string) error {
	if pid, isPID := strings.CutPrefix(name, pidPrefix); isPID {
		if n, err := strconv.ParseUint(pid, 10, 31); err != nil || n == 0 {
			return fmt.Errorf("%q: a process's number follows %s", name, pidPrefix)
		}
		return nil
	}
	if strings.HasPrefix(name, "/") && !strings.Contains(name, "\x00") {
		return nil
	}
	return checkCreatable(name)
}

const pidPrefix = "pid:"

// IsCreatable tells that a namespace's name is one that `ip netns` lists: only such namespaces can be made.
func IsCreatable(name string) bool {
	return checkCreatable(name) == nil && !strings.HasPrefix(name, pidPrefix)
}

func checkCreatable(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxNamespaceLen || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q: a namespace's name has 1 to %d bytes, without /, and neither . nor .. is one", name, maxNamespaceLen)
	}
	return nil
}

func checkAddresses(addresses []netip.Prefix) error {
	seen := make(map[netip.Addr]bool, len(addresses))
	for _, p := range addresses {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("tun: address %v: %w: not an IPv4 or IPv6 address with a prefix length", p, ErrConfig)
		}
		if seen[p.Addr()] {
			return fmt.Errorf("tun: address %v: %w: listed twice", p, ErrConfig)
		}
		seen[p.Addr()] = true
	}
	return nil
}

// Counted is a Queue whose packets something counts before they can be read, together with those of other queues.
// Safe for concurrent use.
type Counted interface {
	CountedBy(arrivals *atomic.Uint64)
	// Arrivals is what CountedBy was told; nil: nothing counts them.
	Arrivals() *atomic.Uint64
}

// ClosedQueue is the queue of a place without a device: it takes nothing and gives nothing.
type ClosedQueue struct{}

// Read implements Queue; nobody watches it.
func (ClosedQueue) Read([]byte) (int, error) { return 0, os.ErrClosed }

// Write implements Queue.
func (ClosedQueue) Write([]byte) error { return os.ErrClosed }

// WriteParts implements Queue.
func (ClosedQueue) WriteParts([][]byte) error { return os.ErrClosed }

// SetSlow implements Queue.
func (ClosedQueue) SetSlow(bool) {}

// Offload implements Queue.
func (ClosedQueue) Offload() Offload { return Off }

// FD implements Queue; it has none.
func (ClosedQueue) FD() int { return -1 }

var _ Queue = ClosedQueue{}
