package watch

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// MaxWatchers bounds the subscriptions at a time: eight, four of the console, and that of the daemon's history.
const MaxWatchers = 13

// ErrWatchers is returned by Watchers.Watch when there are MaxWatchers.
var ErrWatchers = fmt.Errorf("%d watch packets already, which is as many as may", MaxWatchers)

// Watchers are all subscriptions of an engine. Safe for concurrent use.
type Watchers struct {
	mu   sync.Mutex // guards changes of list
	list atomic.Pointer[WatcherList]
	// decisions are those of the reader who judges packets again; nil: there is none.
	decisions atomic.Pointer[Decisions]
}

// WatcherList is replaced, never changed.
type WatcherList struct {
	Subscriptions []*Subscription
	DroppedOnly   bool // nobody wants what is carried
	DecidedOnly   bool // nobody wants what is carried as part of a live flow
	Snap          bool // somebody wants bytes
}

// Now is the list; nil: nobody watches.
func (w *Watchers) Now() *WatcherList { return w.list.Load() }

// Spent reports that nobody gets an event of a time, because PerSecond leaves it out for all who would, and counts it
// as skipped. dropped says that the packet was dropped; else it began a flow. So an event that nobody gets need not be made.
func (l *WatcherList) Spent(time int64, dropped bool) bool {
	wants := func(s *Subscription) bool { return dropped || !s.options.DroppedOnly }
	for _, s := range l.Subscriptions {
		if wants(s) && !s.spent(time) {
			return false
		}
	}
	for _, s := range l.Subscriptions {
		if wants(s) {
			s.skipped.Add(1)
		}
	}
	return true
}

// Watch gives a subscription to what becomes of packets, until its Close. names are those that its filter may name.
// The error is a *Error where the filter names what is not there, ErrWatchers, or about the options.
func (w *Watchers) Watch(workers int, o Options, names func() *Names) (s *Subscription, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*Subscription
	if old := w.Now(); old != nil {
		list = old.Subscriptions
	}
	if len(list) == MaxWatchers {
		return nil, ErrWatchers
	}
	if s, err = New(workers, o, names(), func() { w.unwatch(s) }); err != nil {
		return nil, err
	}
	w.set(append(slices.Clone(list), s))
	return s, nil
}

func (w *Watchers) unwatch(s *Subscription) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set(slices.DeleteFunc(slices.Clone(w.Now().Subscriptions), func(other *Subscription) bool { return other == s }))
}

// set is called with mu held.
func (w *Watchers) set(list []*Subscription) {
	if len(list) == 0 {
		w.list.Store(nil)
		return
	}
	all := &WatcherList{Subscriptions: list, DroppedOnly: true, DecidedOnly: true}
	for _, s := range list {
		all.DroppedOnly = all.DroppedOnly && s.options.DroppedOnly
		all.DecidedOnly = all.DecidedOnly && (s.options.DroppedOnly || s.options.DecidedOnly)
		all.Snap = all.Snap || s.Snap() > 0
	}
	w.list.Store(all)
}

// Rename gives every filter the names that count once change has run. No subscription begins meanwhile.
func (w *Watchers) Rename(names func() *Names, change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if all := w.Now(); all != nil {
		names := names()
		for _, s := range all.Subscriptions {
			s.Rebind(names)
		}
	}
	change()
}
