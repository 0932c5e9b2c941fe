package tun

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStateRemovesWhatItMade(t *testing.T) {
	s := newState(t)
	a, b := uniqueName(), uniqueName()
	for _, name := range []string{a, b, a} { // again is fine
		if err := s.CreateNamespace(name); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Namespaces(); !slices.Equal(got, []string{a, b}) {
		t.Errorf("namespaces: %v", got)
	}
	if err := s.RemoveNamespace(a); err != nil || namespaceExists(a) {
		t.Errorf("remove: %v", err)
	}
	if err := s.RemoveNamespace(a); !errors.Is(err, ErrNoNamespace) {
		t.Errorf("remove again: %v", err)
	}
	if err := s.Close(); err != nil || namespaceExists(b) {
		t.Errorf("close: %v", err)
	}
	if left, _ := os.ReadDir(s.dir.Name()); len(left) != 0 {
		t.Errorf("left in the directory: %v", left)
	}
	if err := s.CreateNamespace(a); !errors.Is(err, os.ErrClosed) {
		t.Errorf("create after close: %v", err)
	}
	if err := s.Close(); err != os.ErrClosed {
		t.Errorf("second close: %v", err)
	}
}

func TestStateMakesAgainWhatSomebodyRemoved(t *testing.T) {
	s := newState(t)
	name := uniqueName()
	for range 2 {
		if err := s.CreateNamespace(name); err != nil {
			t.Fatal(err)
		}
		if !namespaceExists(name) {
			t.Fatal("not there")
		}
		if removed, err := removeNamespace(name, s.made[0].identity); !removed || err != nil {
			t.Fatal(err)
		}
	}
}

func TestANamespaceOfSomebodyElseIsNeitherTakenNorRemoved(t *testing.T) {
	name, _ := newNamespace(t)
	s := newState(t)
	err := s.CreateNamespace(name)
	if !errors.Is(err, ErrNamespaceExists) || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want ErrNamespaceExists with the name", err)
	}
	_, _, err = Open(Config{Name: "eth0", Namespace: name, CreateNamespace: true})
	if !errors.Is(err, ErrNamespaceExists) {
		t.Errorf("Open without a state: %v", err)
	}
	if err := s.Close(); err != nil || !namespaceExists(name) {
		t.Errorf("close: %v", err)
	}
}

func TestOneDaemonAtATime(t *testing.T) {
	s := newState(t)
	_, err := OpenState(s.dir.Name())
	var running *RunningError
	if !errors.As(err, &running) || !errors.Is(err, ErrRunning) || running.PID != os.Getpid() {
		t.Fatalf("got %v, want ErrRunning with pid %d", err, os.Getpid())
	}
	if !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(err.Error(), s.dir.Name()) {
		t.Errorf("the message lacks the pid or the directory: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenState(s.dir.Name())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestJournalsOfInterruptedRuns(t *testing.T) {
	mine, id := newNamespace(t)
	theirs, other := newNamespace(t)
	other.Cookie++ // ours of that name is gone; this one was made by others
	unmounted := uniqueName()
	path := filepath.Join(namespaceDir, unmounted)
	if err := os.WriteFile(path, nil, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	dir := t.TempDir()
	text, err := json.Marshal(journal{[]madeNamespace{{mine, id}, {theirs, other}, {unmounted, id}, {uniqueName(), id}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, journalName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Leftovers(); !slices.Equal(got, []string{mine, unmounted}) {
		t.Errorf("leftovers: %v", got)
	}
	if namespaceExists(mine) || namespaceExists(unmounted) {
		t.Error("leftovers are still there")
	}
	if !namespaceExists(theirs) {
		t.Error("somebody's namespace of the same name was removed")
	}
}

func TestADamagedJournalIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, journalName)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); err == nil {
		t.Error("the lock's file was left behind")
	}
	os.Remove(path)
	s, err := OpenState(dir)
	if err != nil {
		t.Fatalf("the lock was kept: %v", err)
	}
	s.Close()
}

// child is a daemon: it makes a namespace and a device, says so, and waits to be killed.
func child(dir string) error {
	s, err := OpenState(dir)
	if err != nil {
		return err
	}
	name := uniqueName()
	for _, offload := range []Offload{Auto, Off} {
		_, _, err = Open(Config{
			Name: "dev-" + offload.String(), Namespace: name, CreateNamespace: true, State: s, Queues: 2,
			Offload: offload, Addresses: prefixes("10.9." + fmt.Sprint(int(offload)) + ".1/24"),
		})
		if err != nil {
			return err
		}
	}
	fmt.Println(name)
	select {}
}

func TestAKilledDaemonLeavesNothingAfterTheNextStart(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), childDir+"="+dir)
	command.Stderr = os.Stderr
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Process.Kill()
	name, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v", err)
	}
	name = strings.TrimSpace(name)
	var running *RunningError
	if _, err := OpenState(dir); !errors.As(err, &running) || running.PID != command.Process.Pid {
		t.Errorf("while it runs: got %v, want ErrRunning with pid %d", err, command.Process.Pid)
	}
	if got := devices(t, name); !slices.Equal(got, []string{"dev-auto", "dev-off", "lo"}) {
		t.Errorf("devices before: %v", got)
	}
	command.Process.Kill()
	command.Wait()
	if !namespaceExists(name) {
		t.Error("the namespace went without the journal: this test shows nothing")
	}
	eventually(t, "the killed daemon's devices vanish", func() bool { return len(devices(t, name)) == 1 })
	s, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !slices.Equal(s.Leftovers(), []string{name}) || namespaceExists(name) {
		t.Errorf("leftovers %v, want %v removed", s.Leftovers(), name)
	}
}

// devices lists the interfaces of a namespace by name.
func devices(t testing.TB, namespace string) []string {
	t.Helper()
	var names []string
	err := Do(namespace, func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// Another user's link in the place of a file that root writes must not have root write through it.
func TestHostile18LockSymlink(t *testing.T) {
	for _, name := range []string{lockName, journalName, journalName + ".new"} {
		for kind, plant := range map[string]func(target, link string) error{"symbolic": os.Symlink, "hard": os.Link} {
			dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
			if err := errors.Join(os.WriteFile(victim, []byte("precious"), 0o600), plant(victim, filepath.Join(dir, name))); err != nil {
				t.Fatal(err)
			}
			s, err := OpenState(dir)
			if err == nil {
				s.made = []madeNamespace{{Name: "x"}}
				err = s.writeJournal()
				s.made = nil
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if refused := name != journalName+".new"; (err != nil) != refused {
				t.Errorf("a %s link %s: %v", kind, name, err)
			}
			if text, err := os.ReadFile(victim); string(text) != "precious" || err != nil {
				t.Errorf("through a %s link %s: %q, %v", kind, name, text, err)
			}
		}
	}
	everybodys := t.TempDir()
	if err := os.Chmod(everybodys, 0o777); err != nil {
		t.Fatal(err)
	}
	if s, err := OpenState(everybodys); err == nil {
		s.Close()
		t.Error("a folder that everybody may write to was taken")
	}
}
