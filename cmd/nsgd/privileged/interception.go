package privileged

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nsgd/nsgd/tun/container"
	"github.com/nsgd/nsgd/tun/intercept"
)

// maxEvents bounds the events that wait for the daemon. Further ones wait for it too.
const maxEvents = 256

// Port is an interface before which nsgd stands, as another process can be told of it.
type Port struct {
	intercept.Port
	// Container is the name of Docker's or podman's that is the guest; empty: none is.
	Container string
}

// Ports are those of intercept.
func Ports(list []Port) (ports []intercept.Port) {
	for _, p := range list {
		port := p.Port
		if p.Container != "" {
			port.Process = func() (int, error) { return container.Process(context.Background(), p.Container, container.Sockets) }
		}
		ports = append(ports, port)
	}
	return ports
}

// Event is something that Watch tells about the interfaces of a namespace.
type Event struct {
	Namespace string
	Text      string
	// Mild says that it is a trouble at an interface, or one that was mended.
	Mild bool
	// Fatal says that the interfaces can't be followed any more.
	Fatal bool
}

// interception has the programs of each namespace.
type interception struct {
	mu         sync.Mutex
	namespaces map[string]*watched
	events     chan Event
	over       sync.Once
	ended      chan struct{} // closed by close
}

// watched is an interceptor with its Watch.
type watched struct {
	*intercept.Interceptor
	stop context.CancelFunc // nil: nobody watches
	wait sync.WaitGroup
}

func (w *watched) end() {
	if w.stop != nil {
		w.stop()
		w.wait.Wait()
	}
	w.Close()
}

func (n *interception) close() {
	n.over.Do(func() { close(n.ended) })
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.namespaces {
		w.end()
	}
	clear(n.namespaces)
}

// of is the interceptor of a namespace.
func (s *server) of(namespace string) (*watched, error) {
	s.interception.mu.Lock()
	defer s.interception.mu.Unlock()
	w := s.interception.namespaces[namespace]
	if w == nil {
		return nil, fmt.Errorf("namespace %q: nsgd stands before no interface there", namespace)
	}
	return w, nil
}

// Intercept loads the programs for a namespace. The answer says whether an earlier run has left interfaces closed.
func (s *server) Intercept(namespace string, adopted *bool) error {
	p, err := s.places()
	if err == nil {
		err = p.interfaces(namespace)
	}
	if err != nil {
		return err
	}
	n := &s.interception
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.namespaces[namespace] != nil {
		return fmt.Errorf("namespace %q: nsgd stands before interfaces there already", namespace)
	}
	i, err := intercept.Open(namespace)
	if err != nil {
		return err
	}
	if n.namespaces == nil {
		n.namespaces = map[string]*watched{}
	}
	n.namespaces[namespace] = &watched{Interceptor: i}
	*adopted = i.Adopted()
	return nil
}

// Arrangement is what stands in a namespace.
type Arrangement struct {
	Namespace string
	Ports     []Port
	Rests     []intercept.Rest
}

// Check is intercept's: the answer is the MTU.
func (s *server) Check(a Arrangement, mtu *int) error {
	w, err := s.of(a.Namespace)
	if err == nil {
		*mtu, err = w.Interceptor.Check(Ports(a.Ports))
	}
	return err
}

// Guard is intercept's.
func (s *server) Guard(a Arrangement, _ *None) error {
	w, err := s.of(a.Namespace)
	if err == nil {
		err = w.Interceptor.Guard(Ports(a.Ports))
	}
	return err
}

// Apply is intercept's.
func (s *server) Apply(a Arrangement, _ *None) error {
	w, err := s.of(a.Namespace)
	if err == nil {
		err = w.Interceptor.Apply(Ports(a.Ports), a.Rests)
	}
	return err
}

// Again is intercept's.
func (s *server) Again(namespace string, _ *None) error {
	w, err := s.of(namespace)
	if err == nil {
		err = w.Interceptor.Again()
	}
	return err
}

// AskGuests is intercept's Probe.
func (s *server) AskGuests(namespace string, _ *None) error {
	w, err := s.of(namespace)
	if err == nil {
		err = w.Interceptor.Probe()
	}
	return err
}

// Opening is when interfaces open by themselves.
type Opening struct {
	Namespace string
	After     time.Duration // 0: never
}

// OpenAfter is intercept's.
func (s *server) OpenAfter(o Opening, _ *None) error {
	w, err := s.of(o.Namespace)
	if err == nil {
		err = w.Interceptor.OpenAfter(o.After)
	}
	return err
}

// Statuses is intercept's.
func (s *server) Statuses(namespace string, list *[]intercept.Status) error {
	w, err := s.of(namespace)
	if err == nil {
		*list = w.Interceptor.Statuses()
	}
	return err
}

// Behind is the device of a port.
type Behind struct{ Namespace, Device string }

// MAC is intercept's.
func (s *server) MAC(b Behind, mac *net.HardwareAddr) error {
	w, err := s.of(b.Namespace)
	if err == nil {
		*mac = w.Interceptor.MAC(b.Device)
	}
	return err
}

// Leave gives the programs of a namespace back: interfaces stay as they are.
func (s *server) Leave(namespace string, _ *None) error {
	s.interception.mu.Lock()
	defer s.interception.mu.Unlock()
	if w := s.interception.namespaces[namespace]; w != nil {
		w.end()
		delete(s.interception.namespaces, namespace)
	}
	return nil
}

// Detach opens the interfaces of a namespace and removes nsgd's devices there.
func (s *server) Detach(namespace string, _ *None) error {
	p, err := s.places()
	if err == nil {
		err = p.interfaces(namespace)
	}
	if err == nil {
		_, err = intercept.Detach(namespace)
	}
	return err
}

// Watch follows the interfaces of a namespace until Leave.
func (s *server) Watch(namespace string, _ *None) error {
	w, err := s.of(namespace)
	if err != nil {
		return err
	}
	n := &s.interception
	n.mu.Lock()
	defer n.mu.Unlock()
	if w.stop != nil {
		return fmt.Errorf("namespace %q: its interfaces are followed already", namespace)
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	tell := func(e Event) {
		e.Namespace = namespace
		select {
		case n.events <- e:
		case <-ctx.Done():
		}
	}
	w.wait.Go(func() {
		err := w.Interceptor.Watch(ctx, func(err error) {
			_, trouble := errors.AsType[*intercept.Trouble](err)
			tell(Event{Text: err.Error(), Mild: trouble || errors.Is(err, intercept.ErrMended)})
		})
		if err != nil {
			tell(Event{Text: err.Error(), Fatal: true})
		}
	})
	return nil
}

// eventPatience is how long a question for events waits for one.
const eventPatience = 10 * time.Second

// Events waits for events of all namespaces; none came when the answer is empty.
func (s *server) Events(_ None, list *[]Event) error {
	late := time.NewTimer(eventPatience)
	defer late.Stop()
	select {
	case e := <-s.interception.events:
		*list = append(*list, e)
	case <-late.C:
	case <-s.interception.ended:
	}
	for len(*list) > 0 && len(*list) < maxEvents {
		select {
		case e := <-s.interception.events:
			*list = append(*list, e)
			continue
		default:
		}
		break
	}
	return nil
}
