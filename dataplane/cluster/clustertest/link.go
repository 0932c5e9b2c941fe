package clustertest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// State is how a link is.
type State int

// The states of a link.
const (
	// Whole: everything passes.
	Whole State = iota
	// Silent: nothing passes, and nobody is told.
	Silent
	// Refused: connections end, and new ones too.
	Refused
	// Unanswered: what is asked arrives, and no answer comes back: the outcome is not known.
	Unanswered
	// Slow: each piece takes a while.
	Slow
)

// String names the state.
func (s State) String() string {
	return [...]string{"whole", "silent", "refused", "unanswered", "slow"}[s]
}

// slowness is how long a piece takes on a slow link.
const slowness = 300 * time.Millisecond

// Link leads to one member of etcd. Safe for concurrent use.
type Link struct {
	// Client is the URL to use in place of the member's.
	Client string

	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	state   State                 // guarded by mu
	open    map[net.Conn]struct{} // guarded by mu
	ended   bool                  // guarded by mu
}

// NewLink leads to the member with a URL for clients. It ends with the test.
func NewLink(t testing.TB, client string) *Link {
	t.Helper()
	u, err := url.Parse(client)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Client: u.Scheme + "://" + listener.Addr().String(), listener: listener, to: u.Host, open: map[net.Conn]struct{}{}}
	l.changed = sync.NewCond(&l.mu)
	l.running.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

// Set changes the state. What waits on a silent link passes once it is whole, as after retransmissions.
func (l *Link) Set(s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	if s == Refused {
		l.endAll()
	}
	l.changed.Broadcast()
}

// endAll ends all connections. mu is held.
func (l *Link) endAll() {
	for c := range l.open {
		c.Close()
	}
}

func (l *Link) close() {
	l.listener.Close()
	l.mu.Lock()
	l.ended = true
	l.endAll()
	l.changed.Broadcast()
	l.mu.Unlock()
	l.running.Wait()
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carry(near) })
	}
}

// keep has a connection end with the link; false: it is not to be.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.state == Refused {
		c.Close()
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *Link) forget(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

func (l *Link) carry(near net.Conn) {
	if !l.keep(near) {
		return
	}
	defer l.forget(near)
	far, err := net.DialTimeout("tcp", l.to, time.Second)
	if err != nil || !l.keep(far) {
		return
	}
	defer l.forget(far)
	var both sync.WaitGroup
	both.Go(func() { l.copy(far, near, false); far.Close(); near.Close() })
	both.Go(func() { l.copy(near, far, true); far.Close(); near.Close() })
	both.Wait()
}

// copy carries pieces as the state lets it.
func (l *Link) copy(to io.Writer, from io.Reader, answers bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || !l.pass(answers) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// pass waits until a piece may pass; false: the link has ended. What was not answered is answered late.
func (l *Link) pass(answer bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == Slow {
		l.mu.Unlock()
		time.Sleep(slowness)
		l.mu.Lock()
	}
	for !l.ended && (l.state == Silent || l.state == Unanswered && answer) {
		l.changed.Wait()
	}
	return !l.ended
}
