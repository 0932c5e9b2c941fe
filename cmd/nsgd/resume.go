package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/metrics"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fdstore"
)

const (
	// queueName begins the names of the descriptors of devices' queues in the store; all others are slabs.
	queueName = "q."
	// formerQueueName began them in versions whose devices had one queue for each worker.
	formerQueueName = "queue."
	// mostWaiting packets wait in a queue while no process reads it: half a second of 50,000 a second, longer than the
	// next process takes with a million flows. The kernel has 8 bytes for each, of waitingBytes in all queues. At least
	// leastWaiting wait.
	mostWaiting, leastWaiting = 24_576, 2_048
	waitingBytes              = 256 << 20
	// After maxCrashes starts without an orderly end within crashTime a process begins without flows.
	maxCrashes = 5
	crashTime  = time.Minute
)

// inheritance is what the process before has left, and what this one leaves. Without a store that keeps descriptors it
// is empty, and everything ends with the process.
type inheritance struct {
	store  fdstore.Store
	unkept string // why nothing outlives the process but what file holds; empty: store keeps it
	slabs  *slab.Slabs
	mu     sync.Mutex // guards queues and names while devices are opened
	names  int        // bytes of the names that the store has
	// steering is the key by which packets find their queues; 0: not chosen yet.
	steering uint64
	queues   map[string]*os.File // by name, that nobody has taken yet
	// resumes says that a process was here before.
	resumes bool
	// resumesFlows says that flows come from file.
	resumesFlows bool
	file         string            // that holds the flows while the machine is off; empty: none does
	kept         *continuity.Store // nil: nothing outlives the process
	// leaving says that this process ends for the next one, which finds everything.
	leaving atomic.Bool
}

// inherit takes what the process before has left. Call it before descriptors are opened.
func inherit() (*inheritance, error) {
	found, err := fdstore.Inherited()
	if err != nil {
		return nil, err
	}
	store, why := fdstore.Open()
	n := &inheritance{store: store, unkept: why}
	n.receive(found)
	return n, nil
}

// receive takes descriptors that the process before has left, by their names. Nothing was taken before.
func (n *inheritance) receive(found map[string][]*os.File) {
	n.resumes, n.queues = len(found) > 0, map[string]*os.File{}
	slabs := map[string]*os.File{}
	for name, files := range found {
		n.names += len(files) * (len(name) + 1)
		to := slabs
		if strings.HasPrefix(name, queueName) || strings.HasPrefix(name, formerQueueName) {
			to = n.queues
		}
		to[name] = files[0]
		for _, f := range files[1:] {
			f.Close()
		}
	}
	n.slabs = slab.New(slabs, n.store)
}

// open opens what is kept, once no other process uses it.
func (n *inheritance) open(file string, log *slog.Logger) (err error) {
	if !n.store.Exists() && fdstore.Supervised() {
		log.Warn("flows and devices end with this process", "because", n.unkept)
	}
	if n.file = file; !n.store.Exists() && file == "" {
		return nil
	}
	if file != "" && len(n.slabs.Names()) == 0 {
		found, err := continuity.Load(n.slabs, file)
		if err != nil {
			log.Error("the flows in state.file are lost", "file", file, "error", err)
		}
		n.resumesFlows = found && err == nil
	}
	n.kept, err = continuity.Open(n.slabs, time.Now())
	if err == nil {
		if crashes := n.kept.Restarts(time.Now(), crashTime); crashes > maxCrashes {
			err = fmt.Errorf("%d starts within %v", crashes, crashTime)
		}
	}
	tell := func(err error) {
		log.Error("the next process may not find every flow and counter", "error", err)
	}
	if err == nil {
		n.kept.OnFailure(tell)
		return nil
	}
	log.Error("the last process's flows and counters are left behind: the devices stay", "error", err)
	if err := continuity.Forget(n.slabs); err != nil {
		return err
	}
	if n.kept, err = continuity.Open(n.slabs, time.Now()); err == nil {
		n.kept.OnFailure(tell)
	}
	return err
}

// carrier keeps what scrapers have seen; nil: nobody does.
func (n *inheritance) carrier() metrics.Carrier {
	if n.kept == nil {
		return nil
	}
	return n.kept
}

// tell logs what became of the last process's flows.
func (n *inheritance) tell(log *slog.Logger, a conntrack.Adoption, took time.Duration) {
	if !n.resumes && !n.resumesFlows || n.kept == nil {
		return
	}
	attributes := []any{"flows", a.Flows, "took", took.Round(time.Millisecond)}
	for why, count := range a.Lost {
		if count > 0 {
			attributes = append(attributes, "lost: "+conntrack.Loss(why).String(), count)
		}
	}
	if a.Refused != nil {
		log.Error("the last process's flows are lost", "error", a.Refused)
		return
	}
	log.Info("goes on with the last process's flows", append(attributes, "copied", a.Copied)...)
}

// queuesOf begins the names of a device's queues in the store. They are short: systemd passes all names in one variable,
// which the kernel bounds.
func queuesOf(namespace, device string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + device))
	return queueName + base64.RawURLEncoding.EncodeToString(sum[:6])
}

// formerQueuesOf is what queuesOf was.
func formerQueuesOf(namespace, device string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + device))
	return fmt.Sprintf("%s%x.", formerQueueName, sum[:12])
}

// queueNames are the names of a device's queues in the store. They also say whether those of sparse flows are among them.
func queueNames(namespace, device string, queues int, steered bool) []string {
	names := make([]string, queues)
	for i := range names {
		if steered {
			names[i] = fmt.Sprint(queuesOf(namespace, device), i)
		} else {
			names[i] = fmt.Sprintf("%s~%d", queuesOf(namespace, device), i)
		}
	}
	return names
}

// waitingPackets is how many packets wait in each of some queues.
func waitingPackets(queues int) int {
	return max(leastWaiting, min(mostWaiting, waitingBytes/8/queues))
}

// opener opens devices that the store keeps, or that it has kept.
func (n *inheritance) opener(open opener) opener {
	if !n.store.Exists() {
		return open
	}
	return func(c tun.Config) (tun.Device, tun.Offload, error) {
		fits := n.fit(&c)
		names := queueNames(c.Namespace, c.Name, c.Queues, c.Steer != 0)
		if c.TxQueueLen == 0 {
			c.TxQueueLen = waitingPackets(c.Queues)
		}
		kept := &keptDevice{inheritance: n, names: names}
		var stored []string
		if fits {
			c.Adopt, stored = n.take(names)
		}
		if len(c.Adopt) > 0 {
			d, level, err := open(c)
			if !errors.Is(err, tun.ErrNotAdopted) {
				if kept.Device = d; err != nil {
					return nil, level, err
				}
				return kept, level, nil // the store has the queues already
			}
			c.Adopt = nil
		}
		d, level, err := n.openAfresh(open, c, stored)
		if err != nil {
			return nil, level, err
		}
		if len(d.Queues()) < len(names) { // the kernel can't steer
			names = queueNames(c.Namespace, c.Name, len(d.Queues()), false)
		}
		if !n.named(names) {
			if c.Warn != nil {
				c.Warn(errors.New("systemd's store has no room for the names of more queues: the devices beyond are opened anew at a restart"))
			}
			return d, level, nil
		}
		kept.Device, kept.names = d, names
		for i, q := range d.Queues() {
			err = errors.Join(err, n.store.KeepFD(names[i], q.FD()))
		}
		if err != nil {
			return nil, level, errors.Join(fmt.Errorf("keep the device's descriptors: %w", err), kept.Close())
		}
		return kept, level, nil
	}
}

// goodbye bounds how long the store may take to close descriptors, and the kernel to remove the device with them.
const goodbye = 3 * time.Second

// maxNames bounds the names of all queues, in bytes: systemd passes them in one variable, and Linux takes 128 KB of it.
const maxNames = 100_000

// named notes that systemd's store gets these names, if there is room.
func (n *inheritance) named(names []string) bool {
	if !n.store.IsSystemds() {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	length := 0
	for _, name := range names {
		length += len(name) + 1
	}
	if n.names+length > maxNames {
		return false
	}
	n.names += length
	return true
}

// fit reports that what the last process has left of a device is what c asks for. c asks for what is there where the kernel
// could not steer, which is the first half of the queues, and where there were descriptors for twice as many: one device
// more has none of the others opened anew.
func (n *inheritance) fit(c *tun.Config) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	exactly := func(queues int, steered bool) bool {
		names := queueNames(c.Namespace, c.Name, queues+1, steered)
		return n.queues[names[queues-1]] != nil && n.queues[names[queues]] == nil
	}
	if c.Steer != 0 && exactly(c.Queues/2, false) {
		c.Queues, c.Steer = c.Queues/2, 0
		return true
	}
	if c.Steer == 0 && exactly(2*c.Queues, true) {
		c.Queues, c.Steer = 2*c.Queues, n.steering|1
		return true
	}
	return exactly(c.Queues, c.Steer != 0)
}

// take takes the queues of these names that the last process has left. stored are the names of those.
func (n *inheritance) take(names []string) (queues []*os.File, stored []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if f := n.queues[name]; f != nil {
			queues, stored = append(queues, f), append(stored, name)
			delete(n.queues, name)
		}
	}
	return queues, stored
}

// closeRest closes what else the last process has left of a device, and adds its names to those that are stored.
func (n *inheritance) closeRest(c *tun.Config, stored []string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	is, was := queuesOf(c.Namespace, c.Name), formerQueuesOf(c.Namespace, c.Name)
	for name, f := range n.queues {
		if strings.HasPrefix(name, is) || strings.HasPrefix(name, was) {
			f.Close()
			delete(n.queues, name)
			stored = append(stored, name)
		}
	}
	return stored
}

// openAfresh opens a device anew. The store may still keep queues of it that don't fit, those that are stored among them:
// another number, or another kind. The device of that name is there until the store has closed them.
func (n *inheritance) openAfresh(open opener, c tun.Config, stored []string) (d tun.Device, level tun.Offload, err error) {
	if err := n.forget(n.closeRest(&c, stored)); err != nil {
		return nil, level, err
	}
	for deadline := time.Now().Add(goodbye); ; time.Sleep(10 * time.Millisecond) {
		d, level, err = open(c)
		if !errors.Is(err, tun.ErrDeviceExists) || time.Now().After(deadline) {
			return d, level, err
		}
	}
}

// forget has the store keep nothing of these names.
func (n *inheritance) forget(names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, n.store.Forget(name))
		n.mu.Lock()
		n.names -= len(name) + 1
		n.mu.Unlock()
	}
	return errors.Join(errs...)
}

// keptDevice is a device whose descriptors the store keeps too.
type keptDevice struct {
	tun.Device
	inheritance *inheritance
	names       []string
}

// Close implements tun.Device. The interface stays if this process leaves everything to the next one: then its end closes
// the descriptors, since packets wait.
func (d *keptDevice) Close() error {
	if d.inheritance.leaving.Load() {
		return nil
	}
	return errors.Join(d.Device.Close(), d.inheritance.forget(d.names))
}

// discard closes what the process before has left and nobody needs.
func (n *inheritance) discard() error {
	var errs []error
	for name, f := range n.queues {
		errs = append(errs, f.Close(), n.store.Forget(name))
	}
	clear(n.queues)
	return errors.Join(errs...)
}

// close ends what is kept, unless the next process finds it.
func (n *inheritance) close() error {
	if n.leaving.Load() {
		n.kept.Orderly()
		return nil
	}
	var err error
	if n.file != "" && n.kept != nil {
		n.kept.Orderly()
		if err = n.kept.Save(n.file, time.Now()); err != nil {
			err = fmt.Errorf("state.file: %w", err)
		}
	}
	return errors.Join(err, n.discard(), continuity.Forget(n.slabs))
}

// errRestart ends a process that leaves everything to the next one.
var errRestart = errors.New("the next process goes on")

// leave ends the run for the next one.
func (n *inheritance) leave(cancel context.CancelCauseFunc) {
	if n.store.Exists() {
		n.leaving.Store(true)
		cancel(errRestart)
	} else {
		cancel(nil)
	}
}

// createdNamespaces are those that a plan makes.
func createdNamespaces(plan []tun.Config) (names []string) {
	for i := range plan {
		if plan[i].CreateNamespace {
			names = append(names, plan[i].Namespace)
		}
	}
	return names
}
