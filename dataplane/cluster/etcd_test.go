package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/clustertest"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// server is an etcd of a test's own.
type server struct {
	t         testing.TB
	dir       string
	client    string // URLs, with commas between them
	arguments []string
	files     TLSFiles
	process   *exec.Cmd
}

// newServer starts etcd; the test is skipped where there is none.
func newServer(t testing.TB) *server { return newServerWith(t, func(*server) {}) }

func newServerWith(t testing.TB, more func(*server)) *server {
	t.Helper()
	clustertest.NeedServer(t)
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "etcd"), client: clustertest.FreeURL(t)}
	peer := clustertest.FreeURL(t)
	more(s)
	s.arguments = append(s.arguments, "--data-dir", s.dir, "--listen-client-urls", s.client, "--advertise-client-urls", s.client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--log-level", "error", "--unsafe-no-fsync")
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start starts it with what it had.
func (s *server) start() {
	s.t.Helper()
	arguments := s.arguments
	if out, _ := exec.Command("etcd", "--help").CombinedOutput(); !strings.Contains(string(out), "unsafe-no-fsync") {
		arguments = arguments[:len(arguments)-1]
	}
	s.process = exec.Command("etcd", arguments...)
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	store := s.open()
	eventually(s.t, "etcd answers", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := store.client.Get(ctx, "x")
		return err
	})
}

func (s *server) kill() {
	if s.process != nil {
		s.process.Process.Kill()
		s.process.Wait()
		s.process = nil
	}
}

// forget makes it one that has never held anything.
func (s *server) forget() {
	s.t.Helper()
	s.kill()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
	s.start()
}

func (s *server) open() *Store {
	s.t.Helper()
	store, err := Open(StoreOptions{Endpoints: strings.Split(s.client, ","), TLS: s.files, Prefix: DefaultPrefix})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { store.Close() })
	return store
}

// soon bounds a call to an etcd that somebody may have killed.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = is(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within 90 s: %v", what, err)
}

// viewOf is what etcd has now. A busy machine has it wait.
func viewOf(t testing.TB, s *Store) (v *View) {
	t.Helper()
	eventually(t, "a view", func() (err error) { v, err = s.View(t.Context()); return err })
	return v
}

// policyOf is a packed policy, the same for the same text.
func policyOf(t testing.TB, text string) *generation.Packed {
	t.Helper()
	b := generation.Bundle{Settings: generation.Settings{Policy: []string{"policy"}}, Files: map[string][]byte{"policy/a.json": []byte(text)}}
	p, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// applyOf are options that tests have in common.
func applyOf(t testing.TB, text string) *ApplyOptions {
	return &ApplyOptions{Packed: policyOf(t, text), Who: "test@" + t.Name(), Version: "test", Wait: 15 * time.Second, Now: time.Now}
}

func mustApply(t testing.TB, s *Store, o *ApplyOptions) *Applied {
	t.Helper()
	a, err := s.Apply(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Missing) > 0 {
		t.Fatalf("generation %d: missing %v", a.Generation, a.Missing)
	}
	return a
}
