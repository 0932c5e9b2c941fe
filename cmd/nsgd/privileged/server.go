package privileged

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/dhcp"
	"github.com/nsgd/nsgd/dataplane/platform"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sys/unix"
)

// service is the name under which the privileged part answers.
const service = "Privileged."

// Serve does what the daemon at the other end of a socket asks for, within the places of the configuration, for which
// it asks at each request. arguments are the daemon's; nil: they are not known.
// It returns when the daemon has gone.
func Serve(conn *net.UnixConn, places func() (*Places, error), arguments []string) error {
	who, err := peerOf(conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	s := &server{places: places, daemon: who, arguments: arguments, devices: map[int]*device{}}
	s.interception.events, s.interception.ended = make(chan Event, maxEvents), make(chan struct{})
	answers := rpc.NewServer()
	if err := answers.RegisterName(service[:len(service)-1], s); err != nil {
		return errors.Join(err, conn.Close())
	}
	answers.ServeCodec(&answerer{wire: wire{conn: conn}, room: make(chan struct{}, maxAtOnce), end: s.left})
	return nil
}

// left gives back what stays when no request comes any more.
func (s *server) left() {
	s.interception.close()
	s.fabric.leave()
}

// peerOf is who is at the other end.
func peerOf(conn *net.UnixConn) (who *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return who, errors.Join(err, failed)
}

// server has what the daemon has asked for. Its exported methods are the requests.
type server struct {
	places func() (*Places, error)
	daemon *unix.Ucred // who asks
	// arguments start the daemon; nil: this part can't.
	arguments []string

	mu      sync.Mutex
	state   *tun.State
	socket  string // the control socket that was opened; empty: none
	devices map[int]*device
	last    int // number of a device
	opening int // devices that Open is about

	interception interception
	fabric       fabricHold
}

// device is one that the daemon has.
type device struct {
	tun.Device
	namespace string
}

var errNotBegun = errors.New("it has not begun")

// None is an empty request or answer.
type None struct{}

// Beginning answers Begin. Its descriptor is that of the control socket.
type Beginning struct {
	Descriptors
	// Running is set when another daemon holds the folder: there is no descriptor then.
	Running *tun.RunningError
	// Leftovers are the namespaces of an interrupted run that were removed.
	Leftovers []string
}

// Begin takes the state directory and opens the control socket in it.
func (s *server) Begin(resume bool, reply *Beginning) error {
	p, err := s.places()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != nil {
		return errors.New("it has begun already")
	}
	open := tun.OpenState
	if resume {
		open = tun.ResumeState
	}
	state, err := open(filepath.Dir(p.Socket))
	if errors.As(err, &reply.Running) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: needs root, or control.socket in a folder of the user who runs this", err)
	}
	if err != nil {
		return err
	}
	s.state, reply.Leftovers = state, state.Leftovers()
	if err := state.HeldBy(int(s.daemon.Pid)); err != nil {
		return err
	}
	access := p.Access
	access.User = cmp.Or(access.User, int(s.daemon.Uid))
	l, err := control.Listen(p.Socket, access)
	if err != nil {
		return err
	}
	s.socket = p.Socket
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return reply.hand(l.(*net.UnixListener))
}

// hand puts descriptors of sockets into an answer, and closes the sockets here.
func (d *Descriptors) hand(sockets ...interface {
	syscall.Conn
	Close() error
}) error {
	var errs []error
	for _, socket := range sockets {
		raw, err := socket.SyscallConn()
		var fd int
		var failed error
		if err == nil {
			err = raw.Control(func(of uintptr) { fd, failed = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
		}
		if err = errors.Join(err, failed); err == nil {
			d.list = append(d.list, fd)
		}
		errs = append(errs, err, socket.Close())
	}
	return errors.Join(errs...)
}

// End removes the namespaces that were made and the control socket, and gives the state directory back.
func (s *server) End(None, *None) error {
	s.interception.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range s.devices {
		errs = append(errs, d.Close())
	}
	clear(s.devices)
	errs = append(errs, s.fabric.end()) // nobody writes to its devices any more
	if s.socket != "" {
		errs = append(errs, os.Remove(s.socket))
		s.socket = ""
	}
	if s.state != nil {
		errs = append(errs, s.state.Close())
		s.state = nil
	}
	return errors.Join(errs...)
}

// Opened answers Open. Its descriptors are those of tun.HandOver.
type Opened struct {
	Descriptors
	Number   int
	Handover tun.Handover
	// NotAdopted and Exists say why there is no device, by tun.ErrNotAdopted or tun.ErrDeviceExists; empty: for none of
	// these.
	NotAdopted, Exists string
	// Warning is what Config.Warn would be told; empty: nothing.
	Warning string
}

// DeviceOpening asks for a device. Its descriptors are those of the device's queues, if an earlier process has left them.
type DeviceOpening struct {
	Descriptors
	Config tun.Config
}

// config is what is asked for, if the configuration allows it. The caller closes what it has to adopt.
func (s *server) config(o *DeviceOpening) (c tun.Config, err error) {
	c = o.Config
	for _, fd := range o.list {
		c.Adopt = append(c.Adopt, os.NewFile(uintptr(fd), c.Name))
	}
	o.list = nil
	p, err := s.places()
	if err == nil {
		err = p.device(&c)
	}
	return c, err
}

// Open makes a device, or takes over one that an earlier process has left.
func (s *server) Open(o *DeviceOpening, reply *Opened) error {
	c, err := s.config(o)
	defer func() {
		for _, f := range c.Adopt {
			f.Close() // which open has done, unless it was not asked
		}
	}()
	if err != nil {
		return err
	}
	if c.State, err = s.beginOpening(); err != nil {
		return err
	}
	c.Warn = func(err error) { reply.Warning = err.Error() }
	d, _, err := tun.Open(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
	switch { // which the daemon has to tell from other errors
	case errors.Is(err, tun.ErrNotAdopted):
		reply.NotAdopted = err.Error()
		return nil
	case errors.Is(err, tun.ErrDeviceExists):
		reply.Exists = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	if s.state != c.State { // End has come meanwhile
		return errors.Join(errNotBegun, d.Close())
	}
	if reply.list, reply.Handover, err = tun.HandOver(d); err != nil {
		return errors.Join(err, d.Close())
	}
	s.last++
	s.devices[s.last] = &device{d, c.Namespace}
	reply.Number = s.last
	return nil
}

// beginOpening makes room for one more device.
func (s *server) beginOpening() (*tun.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return nil, errNotBegun
	}
	if len(s.devices)+s.opening >= maxDevices {
		return nil, fmt.Errorf("%d devices: no more are allowed", maxDevices)
	}
	s.opening++
	return s.state, nil
}

// find returns a device that Open made.
func (s *server) find(number int) (*device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[number]
	if d == nil {
		return nil, fmt.Errorf("device %d: %w", number, os.ErrClosed)
	}
	return d, nil
}

// KeepNamespaces removes the namespaces of the run before that are not among those.
func (s *server) KeepNamespaces(used []string, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return errNotBegun
	}
	var errs []error
	for _, name := range s.state.Namespaces() {
		if !slices.Contains(used, name) {
			errs = append(errs, s.state.RemoveNamespace(name))
		}
	}
	return errors.Join(errs...)
}

// Prefixes are the addresses or the routes of a device.
type Prefixes struct {
	Number int
	List   []netip.Prefix
}

// SetAddresses is tun.Device's.
func (s *server) SetAddresses(r Prefixes, _ *None) error {
	d, err := s.find(r.Number)
	if err != nil {
		return err
	}
	if len(r.List) > maxPrefixes {
		return fmt.Errorf("%d addresses: allowed are %d", len(r.List), maxPrefixes)
	}
	return d.SetAddresses(r.List)
}

// SetRoutes is tun.Device's.
func (s *server) SetRoutes(r Prefixes, _ *None) error {
	d, err := s.find(r.Number)
	if err == nil {
		err = checkRoutes(d.namespace, r.List)
	}
	if err != nil {
		return err
	}
	return d.SetRoutes(r.List)
}

// Size is the MTU of a device.
type Size struct{ Number, MTU int }

// SetMTU is tun.Device's.
func (s *server) SetMTU(r Size, _ *None) error {
	d, err := s.find(r.Number)
	if err != nil {
		return err
	}
	return d.SetMTU(r.MTU)
}

// Close ends a device whose descriptors the daemon has closed.
func (s *server) Close(number int, _ *None) error {
	d, err := s.find(number)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.devices, number)
	s.mu.Unlock()
	return d.Close()
}

// RemoveNamespace removes a namespace that was made; any other stays.
func (s *server) RemoveNamespace(name string, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil || !slices.Contains(s.state.Namespaces(), name) {
		return nil
	}
	return s.state.RemoveNamespace(name)
}

// Socket answers the requests for a socket.
type Socket struct {
	Descriptors
	// Zone is the index of the platform's device, MTU the interface's.
	Zone, MTU int
	// Missing says that there is no interface of that name, and no descriptor.
	Missing bool
}

// Probe makes a socket for a health probe.
func (s *server) Probe(source netip.Addr, reply *Socket) error {
	p, err := s.places()
	if err != nil {
		return err
	}
	if p.PlatformDevice == "" {
		return errors.New("probes: the configuration has no attachment with platform: true")
	}
	fd, zone, err := probe.Socket(p.Platform, p.PlatformDevice, source)
	if err == nil {
		reply.list, reply.Zone = []int{fd}, zone
	}
	return err
}

// Services opens the sockets of DNS and IMDS.
func (s *server) Services(_ None, reply *Socket) error {
	p, err := s.places()
	if err != nil {
		return err
	}
	if !p.Services {
		return errors.New("services: the configuration has no attachment with platformServices: true")
	}
	sockets, err := platform.Listen(context.Background(), p.Platform)
	if err != nil {
		return err
	}
	return reply.hand(sockets.Streams.(*net.TCPListener), sockets.Datagrams.(*net.UDPConn), sockets.Web.(*net.TCPListener))
}

// Guest is an interface whose guest is answered.
type Guest struct {
	Namespace, Interface string
	Gateway              bool
}

// Frames opens the packet socket of an interface.
func (s *server) Frames(g Guest, reply *Socket) error {
	p, err := s.places()
	if err == nil {
		err = p.interfaces(g.Namespace)
	}
	if err != nil {
		return err
	}
	fd, mtu, err := dhcp.Open(g.Namespace, g.Interface, g.Gateway)
	if errors.Is(err, dhcp.ErrMissing) {
		reply.Missing = true
		return nil
	}
	if err == nil {
		reply.list, reply.MTU = []int{fd}, mtu
	}
	return err
}
