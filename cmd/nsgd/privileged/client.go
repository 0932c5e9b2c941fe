package privileged

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/dhcp"
	"github.com/nsgd/nsgd/dataplane/platform"
	"github.com/nsgd/nsgd/tun"
)

// answerPatience bounds the wait for an answer. Making a device takes milliseconds, nft at most 10 seconds.
const answerPatience = time.Minute

// ErrGone: the privileged part has ended, or doesn't answer. The daemon can't go on without it.
var ErrGone = errors.New("the privileged part of nsgd has ended")

// Client is the daemon's end. Safe for concurrent use.
type Client struct {
	rpc  *rpc.Client
	gone chan struct{} // closed when the other end is gone
	// child is the privileged part where this process has started it; else nil.
	child *os.Process
}

// ender is an asker that tells when the connection has ended.
type ender struct {
	*asker
	end func()
}

// ReadResponseHeader implements rpc.ClientCodec. The rpc package reads no more after an error.
func (e ender) ReadResponseHeader(r *rpc.Response) error {
	return e.check(e.asker.ReadResponseHeader(r))
}

// ReadResponseBody implements rpc.ClientCodec.
func (e ender) ReadResponseBody(body any) error { return e.check(e.asker.ReadResponseBody(body)) }

func (e ender) check(err error) error {
	if err != nil {
		e.end()
	}
	return err
}

// NewClient asks at the other end of a socket, where Serve answers.
func NewClient(conn *net.UnixConn) *Client {
	c := &Client{gone: make(chan struct{})}
	end := sync.OnceFunc(func() { close(c.gone); conn.Close() })
	c.rpc = rpc.NewClientWithCodec(ender{&asker{wire{conn: conn}}, end})
	return c
}

// Wait returns ErrGone when the privileged part ends, or nil when ctx does.
func (c *Client) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.gone:
		return ErrGone
	}
}

// call asks and waits for the answer, for answerPatience at most. Later nothing is asked any more: nobody knows what was done.
func (c *Client) call(method string, request, answer any) error {
	late := time.NewTimer(answerPatience)
	defer late.Stop()
	select {
	case done := <-c.rpc.Go(service+method, request, answer, make(chan *rpc.Call, 1)).Done:
		var said rpc.ServerError
		if done.Error == nil || errors.As(done.Error, &said) {
			return done.Error
		}
		return fmt.Errorf("%w: %w", ErrGone, done.Error)
	case <-late.C:
		c.rpc.Close()
		return fmt.Errorf("%w: no answer to %s in %v", ErrGone, method, answerPatience)
	}
}

// Begin takes the state directory and opens the control socket. leftovers are the namespaces of an interrupted run
// that were removed. The error is a tun.RunningError while another daemon holds the directory.
// resume goes on with the namespaces of the run before.
func (c *Client) Begin(resume bool) (l net.Listener, leftovers []string, err error) {
	var b Beginning
	if err := c.call("Begin", resume, &b); err != nil {
		return nil, nil, err
	}
	if b.Running != nil {
		return nil, nil, b.Running
	}
	files, err := b.files(1)
	if err != nil {
		return nil, nil, err
	}
	defer files[0].Close()
	l, err = net.FileListener(files[0])
	return l, b.Leftovers, err
}

// End has the privileged part remove what it made, and ends it.
func (c *Client) End() error {
	err := errors.Join(c.call("End", None{}, &None{}), c.rpc.Close())
	if c.child != nil && !errors.Is(err, ErrGone) {
		_, waited := c.child.Wait()
		err = errors.Join(err, waited)
	}
	return err
}

// Leave ends the privileged part, and leaves what it has made to the next one. It does not wait: packets may do.
func (c *Client) Leave() error {
	err := c.rpc.Close()
	if c.child != nil {
		err = errors.Join(err, c.child.Release())
	}
	return err
}

// Splits reports that this process has started the privileged part, and can't start another one.
func (c *Client) Splits() bool { return c.child != nil }

// Succeed has the privileged part start the program that is installed now, as this process was started, with
// descriptors by their names and one end of a socket pair. It returns the new process's id.
func (c *Client) Succeed(files []*os.File, names []string, handshake *os.File) (pid int, err error) {
	s := Successor{Names: names}
	for _, f := range append(files[:len(files):len(files)], handshake) {
		s.list = append(s.list, int(f.Fd()))
	}
	err = c.call("Succeed", &s, &pid)
	return pid, err
}

// KeepNamespaces removes the namespaces of the run before that are not among those.
func (c *Client) KeepNamespaces(used []string) error {
	return c.call("KeepNamespaces", used, &None{})
}

// files are the descriptors of an answer that has a certain number of them.
func (d *Descriptors) files(number int) (files []*os.File, err error) {
	if len(d.list) != number {
		closeAll(d.list)
		return nil, fmt.Errorf("privileged: %d descriptors came, not %d", len(d.list), number)
	}
	for _, fd := range d.list {
		files = append(files, os.NewFile(uintptr(fd), "from the privileged part"))
	}
	return files, nil
}

// refusal is an error of the privileged part that is one of this process's too.
type refusal struct {
	text string
	is   error
}

func (r refusal) Error() string { return r.text }

func (r refusal) Unwrap() error { return r.is }

// Open is tun.Open.
func (c *Client) Open(config tun.Config) (tun.Device, tun.Offload, error) {
	var o Opened
	asked := DeviceOpening{Config: config}
	for _, f := range config.Adopt {
		asked.list = append(asked.list, int(f.Fd()))
	}
	err := c.call("Open", &asked, &o)
	for _, f := range config.Adopt {
		err = errors.Join(err, f.Close())
	}
	config.Adopt = nil
	if err != nil {
		return nil, tun.Off, err
	}
	if o.Warning != "" && config.Warn != nil {
		config.Warn(errors.New(o.Warning))
	}
	if o.NotAdopted != "" {
		return nil, tun.Off, refusal{o.NotAdopted, tun.ErrNotAdopted}
	}
	if o.Exists != "" {
		return nil, tun.Off, refusal{o.Exists, tun.ErrDeviceExists}
	}
	d, err := tun.TakeOver(config, o.Handover, o.list, remote{c, o.Number})
	if err != nil {
		return nil, tun.Off, errors.Join(err, remote{c, o.Number}.Close())
	}
	return d, o.Handover.Level, nil
}

// remote is a device that the privileged part has.
type remote struct {
	*Client
	number int
}

func (r remote) SetAddresses(list []netip.Prefix) error {
	return r.call("SetAddresses", Prefixes{r.number, list}, &None{})
}

func (r remote) SetRoutes(list []netip.Prefix) error {
	return r.call("SetRoutes", Prefixes{r.number, list}, &None{})
}

func (r remote) SetMTU(mtu int) error { return r.call("SetMTU", Size{r.number, mtu}, &None{}) }

func (r remote) Close() error { return r.call("Close", r.number, &None{}) }

// RemoveNamespace removes a namespace that was made for a device; any other stays.
func (c *Client) RemoveNamespace(name string) error {
	return c.call("RemoveNamespace", name, &None{})
}

// Probe is probe.Socket, in the platform's namespace.
func (c *Client) Probe(source netip.Addr) (fd, zone int, err error) {
	return c.socket("Probe", source)
}

// Frames is dhcp.Open.
func (c *Client) Frames(namespace, name string, gateway bool) (fd, mtu int, err error) {
	return c.socket("Frames", Guest{namespace, name, gateway})
}

// socket asks for one socket, which comes with its zone or its MTU.
func (c *Client) socket(method string, request any) (fd, number int, err error) {
	var s Socket
	if err := c.call(method, request, &s); err != nil {
		return -1, 0, err
	}
	if s.Missing {
		return -1, 0, dhcp.ErrMissing
	}
	if len(s.list) != 1 {
		closeAll(s.list)
		return -1, 0, fmt.Errorf("privileged: %d descriptors came, not 1", len(s.list))
	}
	return s.list[0], s.Zone + s.MTU, nil
}

// Services is platform.Listen, in the platform's namespace.
func (c *Client) Services() (sockets platform.Sockets, err error) {
	var s Socket
	if err := c.call("Services", None{}, &s); err != nil {
		return sockets, err
	}
	files, err := s.files(3)
	if err != nil {
		return sockets, err
	}
	for _, f := range files {
		defer f.Close()
	}
	var errs [3]error
	sockets.Streams, errs[0] = net.FileListener(files[0])
	sockets.Datagrams, errs[1] = net.FilePacketConn(files[1])
	sockets.Web, errs[2] = net.FileListener(files[2])
	if err := errors.Join(errs[:]...); err != nil {
		return platform.Sockets{}, errors.Join(err, sockets.Close())
	}
	return sockets, nil
}
