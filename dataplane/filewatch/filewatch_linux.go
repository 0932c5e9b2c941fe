package filewatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// maxFolders bounds the folders that the kernel watches. What is in others is found by the look of each Every.
	maxFolders = 4096
	// maxLinks bounds the symbolic links of a path, as the kernel does.
	maxLinks = 40
	// clockStep is how far the times of files are behind the clock at most: the kernel takes them from its last tick.
	clockStep = 20 * time.Millisecond
	// maxTries bounds how often folders that come while others are watched are looked for. The next look finds the rest.
	maxTries = 10
)

// Options are what a Watcher works with.
type Options struct {
	// Files are those that count, with folders in which others may appear. They are asked for before each look.
	Files func() (files, folders []string)
	// Since is when what is known of the files was read: a file with a later change counts as changed.
	Since time.Time
	// Quiet is how long nothing may happen before a look, Longest how long a look waits for that at most. Every is how
	// often there is a look in any case. 0: 200 ms, 2 s and a minute.
	Quiet, Longest, Every time.Duration
	Log                   *slog.Logger
}

// Watcher watches files. It belongs to one goroutine.
type Watcher struct {
	options Options
	events  *fsnotify.Watcher // nil: the kernel has no room
	happens <-chan fsnotify.Event
	errors  <-chan error
	watched map[string]identity // folders
	known   map[string]state
	warned  string // of what was warned last
}

// identity tells a folder from another of the same name.
type identity struct{ device, inode uint64 }

// state is a file as a look finds it; zero: it can't be found.
type state struct {
	identity
	size              int64
	modified, changed unix.Timespec
}

// New begins to watch. Close ends it. Where the kernel has no room for one more watcher, only the looks of each Every
// find changes, and the log says so.
func New(o Options) *Watcher {
	o.Quiet, o.Longest, o.Every = cmp.Or(o.Quiet, 200*time.Millisecond), cmp.Or(o.Longest, 2*time.Second), cmp.Or(o.Every, time.Minute)
	w := &Watcher{options: o, watched: map[string]identity{}}
	events, err := fsnotify.NewWatcher()
	if err != nil {
		w.warn(fmt.Errorf("see fs.inotify.max_user_instances: %w", err))
	} else {
		w.events, w.happens, w.errors = events, events.Events, events.Errors
	}
	w.known = w.look()
	for file, s := range w.known {
		if !o.Since.IsZero() && s.isAfter(o.Since) {
			w.known[file] = state{} // the first look finds it changed
		}
	}
	return w
}

// isAfter reports that a file that is there has changed since then.
func (s *state) isAfter(since time.Time) bool {
	return *s != (state{}) && time.Unix(s.changed.Unix()).After(since.Add(-clockStep))
}

// Changed reports that one of some files and folders that are there has changed since then. A folder changes with the names
// in it. A change up to 20 ms before may count too.
func Changed(since time.Time, paths ...string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		s := stateOf(path)
		return s.isAfter(since)
	})
}

// Close ends the watching.
func (w *Watcher) Close() error {
	if w.events == nil {
		return nil
	}
	return w.events.Close()
}

// Run calls changed after each change, until ctx ends. A change that was not taken is told again after Every.
func (w *Watcher) Run(ctx context.Context, changed func() (taken bool)) {
	every := time.NewTicker(w.options.Every)
	defer every.Stop()
	for {
		if now := w.look(); !maps.Equal(now, w.known) && changed() {
			w.known = now
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case e := <-w.happens:
			w.happened(e)
			if !w.settle(ctx) {
				return
			}
		case err := <-w.errors:
			w.lost(err)
		}
	}
}

// settle waits until nothing has happened for a while. It returns false when ctx has ended.
func (w *Watcher) settle(ctx context.Context) bool {
	latest := time.NewTimer(w.options.Longest)
	defer latest.Stop()
	quiet := time.NewTimer(w.options.Quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-latest.C:
			return true
		case <-quiet.C:
			return true
		case e := <-w.happens:
			w.happened(e)
			quiet.Reset(w.options.Quiet)
		case err := <-w.errors:
			w.lost(err)
		}
	}
}

// happened forgets a folder that is no longer where it was: another one of its name may even have its inode.
func (w *Watcher) happened(e fsnotify.Event) {
	if e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename) {
		delete(w.watched, e.Name)
	}
}

// lost has all folders watched anew: the kernel had more to tell than there was room for.
func (w *Watcher) lost(err error) {
	w.warn(err)
	clear(w.watched)
}

// look finds out how the files are. It watches their folders first, so that what changes behind it causes another look:
// a folder that is watched only now may have got files meanwhile.
func (w *Watcher) look() map[string]state {
	files, folders := w.options.Files()
	for range maxTries {
		want := map[string]bool{}
		for _, folder := range folders {
			below(folder, want)
		}
		for _, file := range files {
			around(file, want)
		}
		added := w.watch(want)
		if files, folders = w.options.Files(); !added {
			break
		}
	}
	found := make(map[string]state, len(files))
	for _, file := range files {
		found[file] = stateOf(file)
	}
	return found
}

// watch has the kernel watch folders, and no others. It reports that some were not watched before.
func (w *Watcher) watch(want map[string]bool) (added bool) {
	if w.events == nil {
		return false
	}
	for folder := range w.watched {
		if !want[folder] {
			w.events.Remove(folder) // fails when it is gone
			delete(w.watched, folder)
		}
	}
	var faults []error
	for _, folder := range slices.Sorted(maps.Keys(want)) {
		is, was := stateOf(folder).identity, w.watched[folder]
		if is == was || is == (identity{}) {
			continue
		}
		w.events.Remove(folder) // another one of the name; fails when there is none
		delete(w.watched, folder)
		if len(w.watched) >= maxFolders {
			faults = append(faults, fmt.Errorf("more than %d folders", maxFolders))
			break
		}
		if err := w.events.Add(folder); err == nil {
			w.watched[folder], added = is, true
		} else if !errors.Is(err, os.ErrNotExist) {
			faults = append(faults, fmt.Errorf("%s: %w", folder, err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		w.warn(err)
	} else {
		w.warned = ""
	}
	return added
}

// warn says once that changes may be found late.
func (w *Watcher) warn(err error) {
	if text := err.Error(); text != w.warned {
		w.warned = text
		w.options.Log.Warn("changes of files may be found late", "every", w.options.Every, "error", err)
	}
}
