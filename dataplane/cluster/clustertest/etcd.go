// Package clustertest has an etcd of a test's own, of one member or several, and links to it that can be cut.
package clustertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Etcd is the real server. It ends with the test.
type Etcd struct {
	// Members are those of one cluster.
	Members []*Member

	t    testing.TB
	more []string
}

// Member is a process. Its methods are for one goroutine at a time.
type Member struct {
	// Client is the URL for clients.
	Client string

	of        *Etcd
	name, dir string
	peer      string
	process   *exec.Cmd
}

// New starts an etcd of so many members, with more arguments. The test is skipped where there is no etcd.
func New(t testing.TB, members int, more ...string) *Etcd {
	t.Helper()
	NeedServer(t)
	e := &Etcd{t: t, more: more}
	dir := t.TempDir()
	for i := range members {
		name := fmt.Sprint("m", i+1)
		e.Members = append(e.Members, &Member{of: e, name: name, dir: filepath.Join(dir, name), Client: FreeURL(t), peer: FreeURL(t)})
	}
	t.Cleanup(e.Kill)
	e.Start()
	return e
}

// NeedServer skips the test where there is no etcd.
func NeedServer(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not there: apt install etcd-server")
	}
}

// given are the ports of FreeURL.
var given sync.Map

// FreeURL is an http URL of this machine that nobody listens at, and another one each time. Its port is below those that
// Linux gives to connections, which would take it while an etcd is away.
func FreeURL(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprint("127.0.0.1:", 16384+rand.IntN(16384))
		if _, again := given.LoadOrStore(address, true); again {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return "http://" + address
		}
	}
	t.Fatal("there is no free port from 16384 to 32767")
	return ""
}

// Endpoints are the URLs for clients of all members.
func (e *Etcd) Endpoints() (list []string) {
	for _, m := range e.Members {
		list = append(list, m.Client)
	}
	return list
}

// Start starts the members that don't run, with what they had, and waits until the cluster answers.
func (e *Etcd) Start() {
	e.t.Helper()
	for _, m := range e.Members {
		m.Start()
	}
	e.Await()
}

// Await waits until the cluster answers.
func (e *Etcd) Await() {
	e.t.Helper()
	client := e.Dial(e.Endpoints()...)
	defer client.Close()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err = client.Get(ctx, "x")
		cancel()
		if err == nil {
			return
		}
	}
	e.t.Fatalf("etcd does not answer: %v", err)
}

// Dial is a client of its own for a test.
func (e *Etcd) Dial(endpoints ...string) *clientv3.Client {
	e.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 3 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	return client
}

// Kill ends all members at once.
func (e *Etcd) Kill() {
	for _, m := range e.Members {
		m.Kill()
	}
}

// Forget makes it one that has never held anything.
func (e *Etcd) Forget() {
	e.t.Helper()
	e.Kill()
	for _, m := range e.Members {
		if err := os.RemoveAll(m.dir); err != nil {
			e.t.Fatal(err)
		}
	}
	e.Start()
}

// Leader is the member that leads; nil: nobody says so now.
func (e *Etcd) Leader() *Member {
	for _, m := range e.Members {
		if m.leads() {
			return m
		}
	}
	return nil
}

func (m *Member) leads() bool {
	client := m.of.Dial(m.Client)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := client.Status(ctx, m.Client)
	return err == nil && s.Leader != 0 && s.Leader == s.Header.MemberId
}

// Start starts the member with what it had. It does not wait.
func (m *Member) Start() {
	m.of.t.Helper()
	if m.process != nil {
		return
	}
	var all []string
	for _, other := range m.of.Members {
		all = append(all, other.name+"="+other.peer)
	}
	arguments := append([]string{"--name", m.name, "--data-dir", m.dir, "--listen-client-urls", m.Client, "--advertise-client-urls", m.Client, "--listen-peer-urls", m.peer,
		"--initial-advertise-peer-urls", m.peer, "--initial-cluster", strings.Join(all, ","), "--logger", "zap", "--log-level", "fatal", "--unsafe-no-fsync"}, m.of.more...)
	m.process = exec.Command("etcd", arguments...)
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		m.of.t.Fatal(err)
	}
}

// Kill ends the process at once.
func (m *Member) Kill() {
	if m.process != nil {
		m.process.Process.Kill()
		m.process.Wait()
		m.process = nil
	}
}

// Stop has the process stand still until Continue, as a disk does that answers to nobody.
func (m *Member) Stop() { m.signal(syscall.SIGSTOP) }

// Continue lets a stopped process go on.
func (m *Member) Continue() { m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) {
	if m.process != nil {
		m.process.Process.Signal(s)
	}
}
