package filewatch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// rig is a folder whose *.json files are watched, beside one file by name.
type rig struct {
	t       *testing.T
	dir     string
	w       *Watcher
	changed chan bool
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), changed: make(chan bool, 100)}
	r.write("policy/a.json", "1")
	r.write("one.yaml", "1")
	o.Files = func() (files, folders []string) {
		files, _ = filepath.Glob(r.path("policy/*.json"))
		return append(files, r.path("one.yaml")), []string{r.path("policy")}
	}
	o.Quiet, o.Every, o.Log = 10*time.Millisecond, time.Hour, slog.New(slog.DiscardHandler)
	r.w = New(o)
	t.Cleanup(func() { r.w.Close() })
	return r
}

// run reports changes until the test ends.
func (r *rig) run(taken ...bool) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan bool)
	go func() {
		defer close(done)
		r.w.Run(ctx, func() bool {
			r.changed <- true
			if len(taken) == 0 {
				return true
			}
			first := taken[0]
			taken = taken[1:]
			return first
		})
	}()
	r.t.Cleanup(func() { cancel(); <-done })
}

// wait waits for a change.
func (r *rig) wait() {
	r.t.Helper()
	select {
	case <-r.changed:
	case <-time.After(90 * time.Second):
		r.t.Fatal("no change was found")
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) write(name, text string) {
	r.t.Helper()
	r.must(os.MkdirAll(filepath.Dir(r.path(name)), 0o700))
	r.must(os.WriteFile(r.path(name), []byte(text), 0o600))
}

// replace gives a file another text at once.
func (r *rig) replace(name, text string) {
	r.t.Helper()
	r.write(name+".new", text)
	r.must(os.Rename(r.path(name+".new"), r.path(name)))
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAChangeIsFoundHoweverItIsMade(t *testing.T) {
	for name, change := range map[string]func(*rig){
		"in place": func(r *rig) { r.write("policy/a.json", "22") },
		"an editor's rename": func(r *rig) {
			r.write("policy/.a.json.swp", "2")
			r.must(os.Rename(r.path("policy/.a.json.swp"), r.path("policy/a.json")))
		},
		"a file comes":  func(r *rig) { r.write("policy/b.json", "1") },
		"a file goes":   func(r *rig) { r.must(os.Remove(r.path("policy/a.json"))) },
		"the other one": func(r *rig) { r.write("one.yaml", "22") },
		"the folder goes": func(r *rig) {
			r.must(os.RemoveAll(r.path("policy")))
		},
		"the folder is another": func(r *rig) {
			r.write("next/a.json", "1")
			r.must(os.Rename(r.path("policy"), r.path("before")))
			r.must(os.Rename(r.path("next"), r.path("policy")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.run()
			change(r)
			r.wait()
		})
	}
}

// Each step is found by what was watched after the one before.
func TestAFolderThatComesBackIsWatchedAgain(t *testing.T) {
	r := newRig(t, Options{})
	r.run()
	r.must(os.RemoveAll(r.path("policy")))
	r.wait()
	r.write("policy/a.json", "1")
	r.wait()
	r.write("policy/a.json", "22")
	r.wait()
}

// A mounted ConfigMap: a.json leads to ..data/a.json, and ..data to the folder of an edition.
func TestTheSwapOfAConfigMapIsFound(t *testing.T) {
	r := newRig(t, Options{})
	r.write("policy/..1/a.json", "1")
	r.must(os.Symlink("..1", r.path("policy/..data")))
	r.must(os.Remove(r.path("policy/a.json")))
	r.must(os.Symlink("..data/a.json", r.path("policy/a.json")))
	r.run()
	r.wait()
	for _, edition := range []string{"..2", "..3"} {
		r.write("policy/"+edition+"/a.json", "1")
		r.must(os.Symlink(edition, r.path("policy/..data_tmp")))
		r.must(os.Rename(r.path("policy/..data_tmp"), r.path("policy/..data")))
		r.wait()
	}
}

// A link on the way, as of a deployment that puts a release beside the last one.
func TestTheSwapOfALinkToAFolderIsFound(t *testing.T) {
	r := newRig(t, Options{})
	for _, release := range []string{"releases/1/policy/a.json", "releases/2/policy/a.json"} {
		r.write(release, "1")
	}
	r.must(os.RemoveAll(r.path("policy")))
	r.must(os.Mkdir(r.path("deploy"), 0o700))
	r.must(os.Symlink("../releases/1", r.path("deploy/now")))
	r.must(os.Symlink("deploy/now/policy", r.path("policy")))
	r.run()
	r.wait()
	r.replace("releases/1/policy/a.json", "22") // behind the links
	r.wait()
	r.must(os.Symlink("../releases/2", r.path("deploy/next")))
	r.must(os.Rename(r.path("deploy/next"), r.path("deploy/now")))
	r.wait()
}

// What the kernel watches is gone with a folder, even if another one of its name has got its inode.
func TestWhatIsNoLongerAFolderIsWatchedAnew(t *testing.T) {
	r := newRig(t, Options{})
	folder := r.path("policy")
	want := map[string]bool{folder: true}
	r.w.watch(want)
	if r.w.watch(want) {
		t.Error("a folder that stays is watched anew")
	}
	r.w.happened(fsnotify.Event{Name: folder, Op: fsnotify.Remove})
	if !r.w.watch(want) {
		t.Error("after its end")
	}
	r.w.watched[folder] = identity{1, 2}
	if !r.w.watch(want) {
		t.Error("of another inode")
	}
	r.w.lost(fsnotify.ErrEventOverflow)
	if !r.w.watch(want) {
		t.Error("after lost events")
	}
}

func TestWhatLiesBesideIsNoChange(t *testing.T) {
	r := newRig(t, Options{})
	for _, beside := range []string{"other.yaml", "policy/notes.txt", "policy/.a.json.swp"} {
		r.write(beside, "1")
		if now := r.w.look(); len(now) != 2 || now[r.path("one.yaml")] != r.w.known[r.path("one.yaml")] || now[r.path("policy/a.json")] != r.w.known[r.path("policy/a.json")] {
			t.Errorf("%s: %v, was %v", beside, now, r.w.known)
		}
	}
}

func TestAChangeThatIsNotTakenIsToldAgain(t *testing.T) {
	r := newRig(t, Options{})
	r.run(false, true)
	r.replace("policy/a.json", "22")
	r.wait()
	r.write("other.yaml", "1") // anything that causes a look
	r.wait()
}

// The daemon reads its files before it watches them.
func TestAChangeBeforeTheBeginIsFound(t *testing.T) {
	r := newRig(t, Options{Since: time.Now().Add(-time.Hour)})
	r.run()
	r.wait()
	if later := newRig(t, Options{Since: time.Now().Add(time.Hour)}); later.w.known[later.path("one.yaml")] == (state{}) {
		t.Error("a file from before counts as changed")
	}
}

func TestChangedTellsFilesThatAreYounger(t *testing.T) {
	r := newRig(t, Options{})
	one, two, absent := r.path("one.yaml"), r.path("two.yaml"), r.path("absent.yaml")
	first := stateOf(one)
	since := time.Unix(first.changed.Unix()).Add(2 * clockStep)
	for !Changed(since, two) {
		r.write("two.yaml", "text")
	}
	if Changed(since, one, absent) || !Changed(since, absent, one, two) {
		t.Error("others count as changed")
	}
}

func TestTheFoldersThatAreWatchedAreBounded(t *testing.T) {
	var said strings.Builder
	r := newRig(t, Options{})
	r.w.options.Log = slog.New(slog.NewTextHandler(&said, nil))
	want := map[string]bool{}
	for i := range maxFolders + 2 {
		folder := r.path("many/" + strings.Repeat("x", i%50+1) + "/" + strings.Repeat("y", i/50+1))
		r.must(os.MkdirAll(folder, 0o700))
		want[folder] = true
	}
	r.w.watch(want)
	if n := len(r.w.watched); n > maxFolders || !strings.Contains(said.String(), "changes of files may be found late") {
		t.Errorf("%d folders are watched, said is %q", n, said.String())
	}
	big := map[string]bool{}
	below(r.path("many"), big)
	if len(big) > maxFolders+2 {
		t.Errorf("%d folders were gathered", len(big))
	}
}

// Files that come after a folder was listed and before it is watched cause no event.
func TestFilesThatComeWithTheirFolderAreFound(t *testing.T) {
	r := newRig(t, Options{})
	r.must(os.MkdirAll(r.path("policy/deep"), 0o700))
	files, asked := r.w.options.Files, 0
	r.w.options.Files = func() ([]string, []string) {
		list, folders := files()
		if asked++; asked == 1 {
			r.write("policy/late.json", "1")
		}
		return list, folders
	}
	if _, found := r.w.look()[r.path("policy/late.json")]; !found {
		t.Errorf("after %d listings", asked)
	}
}

// A host whose watchers are all taken; the daemon ended there.
func TestWithoutRoomForAWatcherChangesAreFoundByLooks(t *testing.T) {
	r := newRig(t, Options{})
	r.must(r.w.Close())
	r.w.events, r.w.happens, r.w.errors, r.w.options.Every = nil, nil, nil, 10*time.Millisecond
	r.run()
	r.replace("policy/a.json", "22")
	r.wait()
}
