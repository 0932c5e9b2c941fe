package dataplane

import (
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// MaxWatchers bounds the subscriptions at a time.
const MaxWatchers = 8

// ErrWatchers is returned by Watch when there are MaxWatchers.
var ErrWatchers = fmt.Errorf("%d watch packets already, which is as many as may", MaxWatchers)

// watchers are all subscriptions; the list is replaced, never changed.
type watchers struct {
	list        []*watch.Subscription
	droppedOnly bool // nobody wants what is carried
	snap        bool // somebody wants bytes
}

// Watch gives a subscription to what becomes of packets, until its Close. The error is a
// *watch.Error where the filter names what is not there, ErrWatchers, or about the options.
func (e *Engine) Watch(o watch.Options) (*watch.Subscription, error) {
	e.watching.Lock()
	defer e.watching.Unlock()
	var list []*watch.Subscription
	if old := e.watchers.Load(); old != nil {
		list = old.list
	}
	if len(list) == MaxWatchers {
		return nil, ErrWatchers
	}
	var s *watch.Subscription
	s, err := watch.New(len(e.workers), o, e.watchNames(e.Snapshot()), func() { e.unwatch(s) })
	if err != nil {
		return nil, err
	}
	e.setWatchers(append(slices.Clone(list), s))
	return s, nil
}

func (e *Engine) unwatch(s *watch.Subscription) {
	e.watching.Lock()
	defer e.watching.Unlock()
	list := e.watchers.Load().list
	e.setWatchers(slices.DeleteFunc(slices.Clone(list), func(other *watch.Subscription) bool { return other == s }))
}

// setWatchers is called with watching held.
func (e *Engine) setWatchers(list []*watch.Subscription) {
	if len(list) == 0 {
		e.watchers.Store(nil)
		return
	}
	all := &watchers{list: list, droppedOnly: true}
	for _, s := range list {
		all.droppedOnly = all.droppedOnly && s.DroppedOnly()
		all.snap = all.snap || s.Snap() > 0
	}
	e.watchers.Store(all)
}

// show makes a snapshot the one that decides; filters know its names before it does.
func (e *Engine) show(s *topology.Snapshot) {
	e.watching.Lock()
	defer e.watching.Unlock()
	if all := e.watchers.Load(); all != nil {
		names := e.watchNames(s)
		for _, s := range all.list {
			s.Rebind(names)
		}
	}
	e.snapshot.Store(s)
}

func (e *Engine) watchNames(s *topology.Snapshot) *watch.Names {
	n := &watch.Names{}
	for _, a := range s.Attachments {
		if a.Kind == topology.Vacant {
			n.Attachments = append(n.Attachments, "") // nobody asks for it
			continue
		}
		n.Attachments = append(n.Attachments, a.Name)
	}
	for _, k := range e.registry.Keys() {
		n.Rules = append(n.Rules, watch.RuleName{NetworkSecurityGroup: k.NetworkSecurityGroup, Rule: k.Rule})
	}
	return n
}
