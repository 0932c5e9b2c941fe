package tun

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/nsgd/nsgd/tun/folder"
)

const journalName = "namespaces.json"

// State is a daemon's hold on its state directory. It holds the lock that lets one daemon run at
// a time, and the journal of the network namespaces that this one made. A namespace is in the
// journal before it exists. Safe for concurrent use.
type State struct {
	dir       *os.Root
	lock      *os.File
	leftovers []string

	mu     sync.Mutex
	made   []madeNamespace // guarded by mu; the journal's content
	closed bool            // guarded by mu
}

// madeNamespace is one line of the journal.
type madeNamespace struct {
	Name string `json:"name"`
	identity
}

type journal struct {
	Namespaces []madeNamespace `json:"namespaces"`
}

// OpenState takes the state directory dir and removes what an earlier run left behind. It makes
// dir if needed. It fails with a RunningError while another process holds dir, and where folder.Open does.
func OpenState(path string) (*State, error) { return openState(path, false) }

// ResumeState is OpenState for a run that goes on where an earlier one has stopped: its namespaces are this run's.
func ResumeState(path string) (*State, error) { return openState(path, true) }

func openState(path string, resume bool) (*State, error) {
	dir, err := folder.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tun: state directory: %w", err)
	}
	lock, err := takeLock(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	s := &State{dir: dir, lock: lock}
	if err := s.readLeftovers(resume); err != nil {
		return nil, errors.Join(err, dir.Remove(lockName), lock.Close(), dir.Close())
	}
	return s, nil
}

// readLeftovers reads the journal of an earlier run. It removes the namespaces in it, or takes them over.
func (s *State) readLeftovers(resume bool) error {
	path := filepath.Join(s.dir.Name(), journalName)
	text, err := s.readJournal()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tun: journal: %w", err)
	}
	var j journal
	if err := json.Unmarshal(text, &j); err != nil {
		return fmt.Errorf("tun: journal %s: %w: remove the file, and the namespaces of that run by hand", path, err)
	}
	if s.made = j.Namespaces; resume {
		return nil
	}
	for _, n := range j.Namespaces {
		removed, err := removeNamespace(n.Name, n.identity)
		if err != nil {
			return fmt.Errorf("tun: leftovers of an earlier run: %w", err)
		}
		if removed {
			s.leftovers = append(s.leftovers, n.Name)
		}
	}
	s.made = nil
	return s.writeJournal()
}

// readJournal reads what an earlier run has written, not what another user has put there.
func (s *State) readJournal() ([]byte, error) {
	f, err := folder.OpenFile(s.dir, journalName, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Leftovers are the namespaces of an earlier run that OpenState removed.
func (s *State) Leftovers() []string { return slices.Clone(s.leftovers) }

// CreateNamespace makes a network namespace, which Close removes. One that this State made
// already is no error; any other is ErrNamespaceExists.
func (s *State) CreateNamespace(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("tun: namespace %q: state: %w", name, os.ErrClosed)
	}
	if i := s.find(name); i >= 0 {
		same, err := s.stillThere(s.made[i])
		if err != nil || same {
			return err
		}
		s.made = slices.Delete(s.made, i, i+1) // it was removed meanwhile
	}
	before := len(s.made)
	err := createNamespace(name, func(id identity) error {
		s.made = append(s.made, madeNamespace{name, id})
		return s.writeJournal()
	})
	if err != nil {
		s.made = s.made[:before]
		return errors.Join(fmt.Errorf("tun: %w", err), s.writeJournal())
	}
	return nil
}

func (s *State) find(name string) int {
	return slices.IndexFunc(s.made, func(n madeNamespace) bool { return n.Name == name })
}

func (s *State) stillThere(n madeNamespace) (bool, error) {
	ns, err := openNamespace(n.Name)
	if errors.Is(err, ErrNoNamespace) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer ns.Close()
	id, err := identify(ns)
	return id == n.identity, err
}

// RemoveNamespace removes a namespace that CreateNamespace made. Close its devices before. Any
// other name is ErrNoNamespace.
func (s *State) RemoveNamespace(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(name)
	if i < 0 {
		return fmt.Errorf("tun: namespace %q: %w among those made here", name, ErrNoNamespace)
	}
	if _, err := removeNamespace(name, s.made[i].identity); err != nil {
		return err
	}
	s.made = slices.Delete(s.made, i, i+1)
	return s.writeJournal()
}

// Namespaces are the names that CreateNamespace made, in that order.
func (s *State) Namespaces() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, len(s.made))
	for i, n := range s.made {
		names[i] = n.Name
	}
	return names
}

// release gives the lock back; mu is held.
func (s *State) release() error {
	// Removed while locked: a process that has opened the file finds that its name is gone.
	return errors.Join(s.dir.Remove(lockName), s.lock.Close(), s.dir.Close())
}

// Close removes the namespaces that were made and releases the directory. Close devices before.
// What can't be removed stays in the journal for the next run.
func (s *State) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return os.ErrClosed
	}
	s.closed = true
	var errs []error
	s.made = slices.DeleteFunc(s.made, func(n madeNamespace) bool {
		_, err := removeNamespace(n.Name, n.identity)
		errs = append(errs, err)
		return err == nil
	})
	errs = append(errs, s.writeJournal(), s.release())
	return errors.Join(errs...)
}

// writeJournal replaces the journal; without namespaces there is no file. mu is held.
func (s *State) writeJournal() error {
	if len(s.made) == 0 {
		if err := s.dir.Remove(journalName); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("tun: journal: %w", err)
		}
		return nil
	}
	text, err := json.MarshalIndent(journal{s.made}, "", "  ")
	if err != nil {
		return fmt.Errorf("tun: journal: %w", err)
	}
	if err := folder.Replace(s.dir, journalName, append(text, '\n'), 0o640); err != nil {
		return fmt.Errorf("tun: journal: %w", err)
	}
	return nil
}
