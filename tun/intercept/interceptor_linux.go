package intercept

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/program"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interceptor is the programs of one network namespace. Safe for concurrent use.
type Interceptor struct {
	namespace string
	home      os.FileInfo // of the namespace, which its name may not mean for ever
	adopted   bool

	mu       sync.Mutex
	handle   *netlink.Handle
	programs *programs
	applied  bool
	ids      map[int]bool // of the programs at interfaces
	ports    []Port
	rests    []Rest
	indexes  map[string]int // interfaces and devices that are attached, by name
	names    map[int]string // the ports of the interfaces that were attached, by index; empty: an earlier run's, not known
	attached []int          // the interfaces at which ports are served
	silent   map[int]bool   // guests' ports of bridges that no port stands for
	gone     bool           // the namespace is: see errGone
	found    map[string]int // the interfaces of ports without a name
	unfound  map[string]error
	table    string            // of nftables, as it was written; empty: not known
	listed   map[string]string // the same as nft lists it, by family
	moved    map[string]bool   // ports' interfaces that went to another network namespace
	seen     map[string]*traffic
	told     map[string]string // what Watch has told, by interface
	now      func() time.Time
}

// errClosed: Close came first. The handle would answer for the process's own namespace.
var errClosed = errors.New("intercept: nsgd stops")

// errGone: the name of the namespace means nothing any more, or another one, such as that of a later process of the
// same number. What nsgd has open there keeps it, but nobody else is there.
var errGone = errors.New("the network namespace is gone: its interfaces are missing until nsgd starts again")

const ownNamespace = "/proc/thread-self/ns/net"

// do runs f in the namespace.
func (i *Interceptor) do(f func() error) error {
	err := tun.Do(i.namespace, func() error {
		if now, err := os.Stat(ownNamespace); err != nil || !os.SameFile(now, i.home) {
			return errors.Join(err, errGone)
		}
		return f()
	})
	if errors.Is(err, tun.ErrNoNamespace) {
		return errors.Join(errGone, err)
	}
	return err
}

// Open loads the programs for a namespace, as tun.Config names it. It takes over what an earlier run has left
// there: interfaces stay closed until Apply. It refuses a namespace where another daemon stands before interfaces.
func Open(namespace string) (*Interceptor, error) {
	i := &Interceptor{
		namespace: namespace, indexes: map[string]int{}, names: map[int]string{}, found: map[string]int{}, unfound: map[string]error{},
		moved: map[string]bool{}, seen: map[string]*traffic{}, told: map[string]string{}, now: time.Now,
	}
	err := tun.Do(namespace, func() (err error) {
		if i.home, err = os.Stat(ownNamespace); err != nil {
			return err
		}
		if i.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		if _, err := unused(i.handle); err != nil {
			return err
		}
		left, err := filtered(i.handle, nil)
		if err != nil {
			return err
		}
		shut, _ := isShut() // without nft there is none
		i.adopted = len(left) > 0 || shut
		earlier, err := earlierMaps(left)
		for _, m := range earlier {
			defer m.Close()
		}
		if err != nil {
			return err
		}
		if i.programs, err = load(earlier); err != nil {
			return err
		}
		if i.ids, err = i.programs.ids(); err != nil {
			return err
		}
		i.remember(left, earlier[prefix+"ports"])
		return i.seal()
	})
	if err != nil {
		i.Close()
		return nil, fmt.Errorf("intercept: %w", err)
	}
	return i, nil
}

// remember notes whose the interfaces were that an earlier run has left: their names may have changed since.
func (i *Interceptor) remember(left []filteredLink, ports *ebpf.Map) {
	for _, f := range left {
		if index := f.link.Attrs().Index; !isKept(f.link) {
			i.names[index] = nameOf(ports, uint32(index))
		}
	}
}

// seal gives what nsgd sends a mark that nobody can guess, unless an earlier run has.
func (i *Interceptor) seal() error {
	var s settingsEntry
	if err := i.programs.Settings.Lookup(uint32(0), &s); err != nil || s.Mark != 0 {
		return err
	}
	var secret [4]byte
	rand.Read(secret[:])
	s.Mark = binary.NativeEndian.Uint32(secret[:]) | 1
	return i.programs.Settings.Put(uint32(0), s)
}

// Adopted tells that an earlier run has left interfaces closed here, whether its maps are in use or not.
func (i *Interceptor) Adopted() bool { return i.adopted }

// Close gives the descriptors back. Interfaces stay as they are: closed, once nobody reads the devices.
func (i *Interceptor) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.handle != nil {
		i.handle.Close()
	}
	if i.programs != nil {
		program.Close(i.programs)
		i.programs = nil
	}
}

// Guard attaches the programs to the interfaces of ports before their devices are there: nothing but what passes
// without nsgd passes from now on. Interfaces that are missing wait for Apply.
func (i *Interceptor) Guard(ports []Port) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	if err := i.closeRenamed(ports); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	attached := slices.Clone(i.attached)
	for _, p := range ports {
		l, err := i.guard(&p, false)
		if err != nil && !isMissing(err) {
			return fmt.Errorf("intercept: %w", err)
		}
		if err == nil {
			attached = append(attached, l.Attrs().Index)
		}
	}
	if err := i.shut(slices.Concat(i.ports, ports), attached); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

func isMissing(err error) bool {
	var missing netlink.LinkNotFoundError
	var unfound notFoundError
	return errors.As(err, &missing) || errors.As(err, &unfound)
}

// guard attaches the programs to a port unless they are there. With verify it looks whether they are.
func (i *Interceptor) guard(p *Port, verify bool) (netlink.Link, error) {
	l, err := i.link(p)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", p, err)
	}
	if i.indexes[p.String()] == l.Attrs().Index && (!verify || i.filtering(p, l)) {
		i.names[l.Attrs().Index] = p.String()
		return l, nil
	}
	ingress, egress := i.programs.Sends, i.programs.Receives
	if p.Host {
		ingress, egress = egress, ingress
	}
	i.names[l.Attrs().Index] = p.String()
	if err := attach(i.handle, l, ingress, egress, p.programs()); err != nil {
		return nil, err
	}
	i.indexes[p.String()] = l.Attrs().Index
	delete(i.moved, p.String())
	return l, nil
}

// programs are the names of those at the port's ingress and egress.
func (p *Port) programs() [2]string {
	if p.Host {
		return [2]string{"nsgd_receives", "nsgd_sends"}
	}
	return [2]string{"nsgd_sends", "nsgd_receives"}
}

// Apply makes ports and rests what is intercepted in the namespace. Others that were are let go: they are open
// afterwards. A port whose interface is missing waits: call Apply again when it is there. All devices must be there.
// On an error what was intercepted stays intercepted.
func (i *Interceptor) Apply(ports []Port, rests []Rest) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	if err := i.apply(ports, rests); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	i.ports, i.rests, i.applied = slices.Clone(ports), slices.Clone(rests), true
	left := func(guest string, _ int) bool {
		return !slices.ContainsFunc(ports, func(p Port) bool { return p.Guest == guest })
	}
	maps.DeleteFunc(i.found, left) // another guest may be behind that port later
	maps.DeleteFunc(i.unfound, func(guest string, _ error) bool { return left(guest, 0) })
	return nil
}

// Again applies what was applied last: interfaces that only Guard has closed open. Where nothing was, what an earlier
// run has closed stays closed, and Guard's too.
func (i *Interceptor) Again() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	if i.unsure() {
		return nil
	}
	if err := i.apply(i.ports, i.rests); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

// OpenAfter opens every interface of the namespace after a time, whatever happens to this process; 0 takes that back.
func (i *Interceptor) OpenAfter(d time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.programs == nil {
		return errClosed
	}
	var s settingsEntry
	if err := i.programs.Settings.Lookup(uint32(0), &s); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	s.OpenAfter = 0
	if d > 0 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			return fmt.Errorf("intercept: clock: %w", err)
		}
		s.OpenAfter = uint64(now.Nano()) + uint64(d)
	}
	if err := i.programs.Settings.Put(uint32(0), s); err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}

// forget lets a guest have another MAC: its interface has gone down.
func (i *Interceptor) forget(index uint32) error {
	err := i.programs.MACs.Delete(index)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
