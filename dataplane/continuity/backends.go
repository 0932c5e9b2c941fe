package continuity

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Backends are what health probes have found out. They implement probe.Memory. Safe for concurrent use.
type Backends struct{ s *Store }

// The texts of a backend: whether it is up, and since when, in nanoseconds since 1970.
const (
	backendUp   = "up"
	backendDown = "down"
)

// Backends are those that this process or the last one has asked. A state file's are forgotten: the machine was away, and
// so may be its backends.
func (s *Store) Backends() *Backends { return &Backends{s} }

// Find tells whether a backend was up when it was asked last, and since when. known: somebody has asked it.
func (b *Backends) Find(name string) (up bool, since time.Time, known bool) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	state, text, _ := strings.Cut(b.s.backends[backendOf+name], " ")
	nanoseconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || state != backendUp && state != backendDown {
		return false, time.Time{}, false
	}
	return state == backendUp, time.Unix(0, nanoseconds), true
}

// Set keeps what a backend has answered.
func (b *Backends) Set(name string, up bool, since time.Time) {
	state := backendDown
	if up {
		state = backendUp
	}
	text := fmt.Sprint(state, " ", since.UnixNano())
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.backends[backendOf+name] == text {
		return
	}
	b.s.backends[backendOf+name] = text
	b.s.fail(b.s.journal.Put(backendOf+name, []byte(text)))
}

// Keep forgets the backends that are not among those.
func (b *Backends) Keep(names []string) {
	kept := slices.Sorted(slices.Values(names))
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for key := range b.s.backends {
		if _, is := slices.BinarySearch(kept, strings.TrimPrefix(key, backendOf)); !is {
			delete(b.s.backends, key)
			b.s.fail(b.s.journal.Delete(key))
		}
	}
}
