// Package continuity is what a process leaves to the next one, in slabs: the flow table's image, counters, and in a
// journal what their numbers mean.
//
// Whatever a number in a slab means is in the journal before the number is used. So the next process understands all
// that it finds, whenever this one was killed.
package continuity

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Store holds a process's slabs. A nil Store keeps nothing. Safe for concurrent use.
type Store struct {
	slabs   *slab.Slabs
	journal *slab.Journal

	mu     sync.Mutex
	before map[string]string // what the journal held at the start
	flows  int               // number of the image in use; 0: none
	later  time.Duration
	zones  Zones
	// written are the zones of the image in use, as the journal has them.
	written Zones
	// backends are what the journal has of backends, by key.
	backends map[string]string
	failed   error       // of the journal, the first
	tell     func(error) // of failed; nil: nobody hears
}

// Zones say what the flow table's zones mean.
type Zones struct {
	Room        int      // of attachments; the far zone of an attachment is that much further
	Attachments []string // identities by slot; empty: vacant
}

// In are the zones of z by the numbers of another process; none: they are not there.
func (z *Zones) In(other *Zones, none uint16) []uint16 {
	slots := map[string]int{}
	for slot, identity := range other.Attachments {
		slots[identity] = slot
	}
	zones := slices.Repeat([]uint16{none}, 2*z.Room)
	for was, identity := range z.Attachments[:min(len(z.Attachments), z.Room)] {
		if now, ok := slots[identity]; ok && identity != "" {
			zones[was], zones[z.Room+was] = uint16(now), uint16(other.Room+now)
		}
	}
	return zones
}

func (z *Zones) equal(other *Zones) bool {
	return z.Room == other.Room && slices.Equal(z.Attachments, other.Attachments)
}

const (
	journalName = "journal"
	journalSize = 512 << 20 // the kernel backs what is written
	flowsName   = "flows"

	keyFlows    = "flows"
	keySeed     = "seed"
	keyCounters = "counters"
	keyStarts   = "starts"
	keyEdits    = "edits"
	zonesOf     = "zones "
	ruleAt      = "rule "
	cellOf      = "cell "
	backendOf   = "backend "
	kernelOf    = "kernel "
)

// Open opens what the last process has left, or begins anew. An error says that what was left is of no use and that
// Forget has to come first.
func Open(slabs *slab.Slabs, now time.Time) (*Store, error) {
	s := &Store{slabs: slabs, before: map[string]string{}, backends: map[string]string{}}
	memory, err := slabs.Find(journalName)
	if err == nil && memory == nil {
		memory, err = slabs.Make(journalName, journalSize)
	}
	if err != nil {
		return nil, err
	}
	if s.journal, err = slab.NewJournal(memory); err != nil {
		return nil, err
	}
	values, err := s.journal.Values()
	if err != nil {
		return nil, err
	}
	for key, value := range values {
		s.before[key] = string(value)
	}
	if text := s.before[keyFlows]; text != "" {
		if s.flows, err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("continuity: the number of the flows' image: %w", err)
		}
	}
	if err := errors.Join(s.sinceFile(now), s.forgetStale()); err != nil {
		return nil, err
	}
	for key, value := range s.before {
		if strings.HasPrefix(key, backendOf) {
			s.backends[key] = value
		}
	}
	for _, name := range slabs.Names() {
		if strings.HasPrefix(name, flowsName) && name != s.flowsName(s.flows) { // a process was killed while it made it
			if err := slabs.Drop(name); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Forget drops all slabs.
func Forget(slabs *slab.Slabs) error {
	var errs []error
	for _, name := range slabs.Names() {
		errs = append(errs, slabs.Drop(name))
	}
	return errors.Join(errs...)
}

// OnFailure has tell hear the first error of the journal, now or later: the next process may not find everything.
func (s *Store) OnFailure(tell func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tell = tell; s.failed != nil {
		tell(s.failed)
	}
}

func (s *Store) put(key, value string) { s.note(s.journal.Put(key, []byte(value))) }

func (s *Store) delete(key string) { s.note(s.journal.Delete(key)) }

func (s *Store) note(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
}

// fail keeps the first error, and tells it; nil is none. mu is held.
func (s *Store) fail(err error) {
	if err == nil || s.failed != nil || errors.Is(err, slab.ErrClosed) {
		return
	}
	if s.failed = err; s.tell != nil {
		s.tell(err)
	}
}

// Restarts are the times at which processes have started that the last ones did not expect: they were killed. The
// one that calls is among them. Orderly forgets them.
func (s *Store) Restarts(now time.Time, within time.Duration) int {
	times := []int64{now.UnixNano()}
	for _, text := range strings.Fields(s.before[keyStarts]) {
		if at, err := strconv.ParseInt(text, 10, 64); err == nil && now.UnixNano()-at < int64(within) && at <= now.UnixNano() {
			times = append(times, at)
		}
	}
	s.put(keyStarts, strings.Trim(fmt.Sprint(times), "[]"))
	return len(times)
}

// Orderly says that this process hands over in good order.
func (s *Store) Orderly() {
	if s != nil {
		s.delete(keyStarts)
	}
}

// Close leaves everything to the next process: this one changes nothing any more, and is not told so.
func (s *Store) Close() {
	if s != nil {
		s.journal.Close()
	}
}

// Seed is that of the load balancers, drawn once.
func (s *Store) Seed(draw func() uint64) uint64 {
	if s == nil {
		return draw()
	}
	if seed, err := strconv.ParseUint(s.before[keySeed], 10, 64); err == nil && seed != 0 {
		return seed
	}
	seed := draw()
	s.put(keySeed, fmt.Sprint(seed))
	return seed
}

// Rules are those of the last process by slot, the zero key where there was none.
func (s *Store) Rules() (keys []topology.RuleKey) {
	if s == nil {
		return nil
	}
	for key, value := range s.before {
		text, is := strings.CutPrefix(key, ruleAt)
		slot, err := strconv.Atoi(text)
		if !is || err != nil || slot < 0 || slot >= topology.MaxRules {
			continue
		}
		var rule topology.RuleKey
		if json.Unmarshal([]byte(value), &rule) != nil {
			continue
		}
		if missing := slot + 1 - len(keys); missing > 0 {
			keys = append(keys, make([]topology.RuleKey, missing)...)
		}
		keys[slot] = rule
	}
	return keys
}

// SetRule says what a slot means from now on.
func (s *Store) SetRule(slot uint32, k topology.RuleKey) {
	if s == nil {
		return
	}
	text, err := json.Marshal(k)
	s.note(err)
	s.put(ruleAt+fmt.Sprint(slot), string(text))
}

// Cells are the numbers of attachments' counters, by identity.
func (s *Store) Cells() map[string]int {
	cells := map[string]int{}
	if s == nil {
		return cells
	}
	for key, value := range s.before {
		if identity, is := strings.CutPrefix(key, cellOf); is {
			if n, err := strconv.Atoi(value); err == nil {
				cells[identity] = n
			}
		}
	}
	return cells
}

// SetCell says which counters an attachment has from now on.
func (s *Store) SetCell(identity string, n int) {
	if s != nil {
		s.put(cellOf+identity, fmt.Sprint(n))
	}
}

// ForgetCell says that an attachment's counters are nobody's.
func (s *Store) ForgetCell(identity string) {
	if s != nil {
		s.delete(cellOf + identity)
		s.delete(kernelOf + identity)
	}
}

// KernelDrops are those at an attachment's earlier devices.
func (s *Store) KernelDrops(identity string) (receive, transmit uint64) {
	if s != nil {
		fmt.Sscan(s.before[kernelOf+identity], &receive, &transmit) // none, if there is no such text
	}
	return receive, transmit
}

// SetKernelDrops keeps them.
func (s *Store) SetKernelDrops(identity string, receive, transmit uint64) {
	if s != nil {
		s.put(kernelOf+identity, fmt.Sprint(receive, transmit))
	}
}

// forgetStale forgets what a state file does not keep.
func (s *Store) forgetStale() error {
	if s.before[keySaved] == "" {
		return nil
	}
	for key := range s.before {
		if !strings.HasPrefix(key, backendOf) && key != keyEdits {
			continue
		}
		delete(s.before, key)
		if err := s.journal.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// Edits are changes of the configuration that the last process has kept; empty: none. A state file keeps none.
func (s *Store) Edits() []byte { return []byte(s.before[keyEdits]) }

// SetEdits keeps changes of the configuration; empty: there are none.
func (s *Store) SetEdits(text []byte) { s.put(keyEdits, string(text)) }

// Counters are what scrapers have seen of counters that end with the process.
func (s *Store) Counters() []byte { return []byte(s.before[keyCounters]) }

// SetCounters keeps what a scraper sees.
func (s *Store) SetCounters(text []byte) { s.put(keyCounters, string(text)) }

// Slabs are the memory of counters.
func (s *Store) Slabs() *slab.Slabs {
	if s == nil {
		return nil
	}
	return s.slabs
}

// PlanZones says what the zones of the next image mean.
func (s *Store) PlanZones(z Zones) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones = z
}

// SetZones says what the zones of the image in use mean from now on.
func (s *Store) SetZones(z Zones) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones = z; s.flows > 0 && !s.written.equal(&z) {
		s.putZones(s.flows)
	}
	if s.before[keySaved] != "" { // the records are of this clock now
		delete(s.before, keySaved)
		s.fail(s.journal.Delete(keySaved))
	}
}

// putZones says what the zones of an image mean; mu is held.
func (s *Store) putZones(image int) {
	s.written = s.zones
	text, err := json.Marshal(s.zones)
	if err == nil {
		err = s.journal.Put(zonesOf+fmt.Sprint(image), text)
	}
	s.fail(err)
}

// Zones are what the zones of the last process's flows mean.
func (s *Store) Zones() (z Zones) {
	if s == nil || s.flows == 0 {
		return z
	}
	if err := json.Unmarshal([]byte(s.before[zonesOf+fmt.Sprint(s.flows)]), &z); err != nil {
		return Zones{}
	}
	return z
}

func (s *Store) flowsName(n int) string { return flowsName + "." + fmt.Sprint(n) }

// Images are the flow table's.
func (s *Store) Images() *Images { return &Images{s} }

// Images implement conntrack.Images.
type Images struct{ s *Store }

// Last is the image that the last process has used.
func (i *Images) Last() ([]byte, error) {
	if i.s.flows == 0 {
		return nil, nil
	}
	return i.s.slabs.Find(i.s.flowsName(i.s.flows))
}

// Make makes the next image.
func (i *Images) Make(size int) ([]byte, error) {
	return i.s.slabs.Make(i.s.flowsName(i.s.flows+1), size)
}

// Commit takes the next image into use, with the zones that PlanZones has said. The last one's memory is gone then.
func (i *Images) Commit() error {
	s := i.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putZones(s.flows + 1)
	if err := s.journal.Put(keyFlows, []byte(fmt.Sprint(s.flows+1))); err != nil {
		return err
	}
	if s.before[keySaved] != "" { // the records are of this clock now
		if err := s.journal.Delete(keySaved); err != nil {
			return err
		}
	}
	if s.flows > 0 {
		if err := errors.Join(s.slabs.Release(s.flowsName(s.flows)), s.journal.Delete(zonesOf+fmt.Sprint(s.flows))); err != nil {
			return err
		}
	}
	s.flows++
	return s.failed
}
