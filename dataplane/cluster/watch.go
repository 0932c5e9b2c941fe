package cluster

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// firstWait and lastWait lie between two tries of what fails. The time between them doubles.
	firstWait, lastWait = 100 * time.Millisecond, 5 * time.Second
	// confirmEvery is how often a watch that hears nothing asks whether it lives.
	confirmEvery = 10 * time.Second
)

// watcher keeps a view up to date. Safe for concurrent use.
type watcher struct {
	store *Store
	// reports says that it follows what hosts report too. Hosts don't: else each would be sent what every other one reports.
	reports bool
	// changed has room for one; it is filled when the view or the connection has changed.
	changed chan struct{}
	doubt   chan struct{} // room for one: etcd may have forgotten what it held

	mu   sync.Mutex
	view *View // nil: none was read yet; guarded by mu
	err  error // why the view may be old; nil: it is not; guarded by mu
	// rewound says that etcd has forgotten what it held; guarded by mu
	rewound int
}

func newWatcher(s *Store, reports bool) *watcher {
	return &watcher{store: s, reports: reports, changed: make(chan struct{}, 1), doubt: make(chan struct{}, 1)}
}

// look has the watcher hold etcd against its view soon.
func (w *watcher) look() {
	select {
	case w.doubt <- struct{}{}:
	default:
	}
}

// now is a copy of the view, and why it may be old. The view is nil before the first one.
func (w *watcher) now() (v *View, rewound int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.view == nil {
		return nil, w.rewound, w.err
	}
	return w.view.clone(), w.rewound, w.err
}

func (w *watcher) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
	w.tell()
}

// run follows etcd until ctx ends.
func (w *watcher) run(ctx context.Context) {
	wait := firstWait
	for ctx.Err() == nil {
		began := time.Now()
		if err := w.follow(ctx); ctx.Err() == nil {
			w.fail(err)
		}
		if time.Since(began) > lastWait {
			wait = firstWait
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-w.doubt: // a lease has come: etcd answers again
		}
		wait = min(2*wait, lastWait)
	}
}

// errEnded is why a watch has to begin again.
var errEnded = errors.New("etcd has ended the watch")

// follow reads the view and takes in what changes. A compaction behind the view's revision ends the watch; what
// follows reads the view again.
func (w *watcher) follow(ctx context.Context) error {
	view, err := w.store.view(ctx, w.reports)
	if err != nil {
		return err
	}
	w.adopt(view)
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	ch := w.store.client.Watch(ctx, w.store.keys.ranges(w.reports)[0][0], clientv3.WithRange(w.store.keys.watchEnd()),
		clientv3.WithRev(view.Revision+1), clientv3.WithCreatedNotify())
	confirm := time.NewTicker(confirmEvery)
	defer confirm.Stop()
	for {
		select {
		case r, open := <-ch:
			if !open {
				return errEnded
			}
			if err := r.Err(); err != nil {
				return w.store.failed("watching", err)
			}
			if err := w.take(&r); err != nil {
				return err
			}
			continue
		case <-w.doubt:
		case <-confirm.C:
		}
		if err := w.alive(ctx); err != nil {
			return err
		}
	}
}

// alive holds etcd against the view: one that was emptied, or restored from a copy, is at an earlier revision, is another
// cluster, or has another id. A watch that is resumed there goes on without a word.
func (w *watcher) alive(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := w.store.client.Get(asked, w.store.keys.age())
	if err != nil {
		return w.store.failed("asking for its revision", err)
	}
	now := newView(w.store.keys)
	for _, kv := range r.Kvs {
		now.put(kv)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Header.Revision < w.view.Revision || r.Header.ClusterId != w.view.Store || !w.view.Age.same(now.Age) {
		return errEnded
	}
	return nil
}

// adopt takes a view that was read.
func (w *watcher) adopt(v *View) {
	w.mu.Lock()
	if w.view != nil && (v.Revision < w.view.Revision || v.Store != w.view.Store || !w.view.Age.same(v.Age)) {
		w.rewound++
	}
	w.view, w.err = v, nil
	w.mu.Unlock()
	w.tell()
}

// take takes in what a watch tells, unless it is of another etcd than the view.
func (w *watcher) take(r *clientv3.WatchResponse) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.view.Age
	for _, e := range r.Events {
		if e.Type == mvccpb.DELETE {
			w.view.drop(string(e.Kv.Key))
		} else {
			w.view.put(e.Kv)
		}
	}
	if !before.same(w.view.Age) {
		w.view.Age = before // the view that is read next is held against it
		return errEnded
	}
	w.view.Revision = max(w.view.Revision, r.Header.Revision)
	if len(r.Events) > 0 {
		w.tell()
	}
	return nil
}
