package main

import (
	"fmt"
	"net"
	"strconv"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/serve"
)

// remote is where clients elsewhere are answered.
type remote struct {
	listener net.Listener // nil: nowhere
	mutual   *serve.Mutual
}

// address is the one that the listener got; empty: there is none.
func (r *remote) address() string {
	if r.listener == nil {
		return ""
	}
	return r.listener.Addr().String()
}

// maxChangers bounds ControlConfig.MayChange.
const maxChangers = 256

// remoteControl checks what lets clients elsewhere in.
func (v *validator) remoteControl(c *ControlConfig) {
	files := []struct{ key, value string }{{"certificate", c.Certificate}, {"key", c.Key}, {"clientCA", c.ClientCA}, {"clientCRL", c.ClientCRL}}
	if c.Listen == "" {
		for _, f := range files {
			if f.value != "" {
				v.fail(at("control", f.key), "%q: it is for control.listen, which is missing", f.value)
			}
		}
		if len(c.MayChange) > 0 {
			v.fail(at("control", "mayChange"), "%q: it is for control.listen, which is missing", c.MayChange[0])
		}
		return
	}
	if err := checkListen(c.Listen); err != nil {
		v.fail(at("control", "listen"), "%q: allowed is HOST:PORT with a numeric port", c.Listen)
	}
	for _, f := range files {
		if f.value == "" && f.key != "clientCRL" {
			v.fail(at("control", f.key), "missing: control.listen needs certificate, key and clientCA, because nobody is answered without a certificate")
		}
	}
	if len(c.MayChange) > maxChangers {
		v.fail(at("control", "mayChange"), "%d names: at most %d", len(c.MayChange), maxChangers)
	}
	for i, name := range c.MayChange {
		if name == "" || len(name) > control.MaxNameLen {
			v.fail(at("control", "mayChange", i), "%q: a name in a client's certificate of 1 to %d bytes is needed", name, control.MaxNameLen)
		}
	}
}

// checkListen refuses an address that nobody can listen on.
func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return err
}

// files are those of TLS.
func (c *ControlConfig) files() serve.MutualFiles {
	return serve.MutualFiles{Certificate: c.Certificate, Key: c.Key, CA: c.ClientCA, CRL: c.ClientCRL}
}

// checkTLS reads the files of TLS.
func (c *ControlConfig) checkTLS() error {
	if c.Listen == "" {
		return nil
	}
	if _, err := c.files().Load(); err != nil {
		return fmt.Errorf("control: certificate, key, clientCA and clientCRL: %w", err)
	}
	return nil
}

// listenRemote opens the port for clients elsewhere, if one is wanted.
func (d *daemon) listenRemote() (err error) {
	c := &d.config.Control
	if c.Listen == "" {
		return nil
	}
	if d.remote.mutual, err = serve.NewMutual(c.files(), d.log); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if d.remote.listener, err = net.Listen("tcp", c.Listen); err != nil {
		return fmt.Errorf("control: %w: set control.listen to a free address, or leave it out", err)
	}
	d.onStop(closeListener(d.remote.listener))
	return nil
}

// serveRemote answers clients elsewhere until the server is shut down.
func (d *daemon) serveRemote(server *control.Server) error {
	if d.remote.listener == nil {
		return nil
	}
	d.log.Info("control from elsewhere", "listen", d.remote.listener.Addr(), "mayChange", d.config.Control.MayChange)
	return server.ServeRemote(d.remote.listener, d.remote.mutual, d.config.Control.MayChange)
}
