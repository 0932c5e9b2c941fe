package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/folder"
	"go.yaml.in/yaml/v3"
)

// checkHost finds out what nsgd run would refuse on this host, without starting anything. What only root may see counts
// as good. running tells that a daemon runs: ports are its own then.
func checkHost(path string, c *Config, running bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	v := validator{file: path, root: &yaml.Node{}}
	if err := yaml.Unmarshal(text, v.root); err != nil {
		return yamlFaults(path, err)
	}
	made := map[string]bool{}
	for i := range c.Attachments {
		made[c.Attachments[i].Netns] = made[c.Attachments[i].Netns] || c.Attachments[i].Create
	}
	for i := range c.Attachments {
		if a := &c.Attachments[i]; !made[a.Netns] { // nobody has been in one that nsgd makes
			v.place(i, a)
		}
	}
	v.folder(at("control", "socket"), filepath.Dir(c.Control.Socket))
	if info, err := os.Lstat(c.Control.Socket); err == nil && info.Mode().Type() != os.ModeSocket {
		v.fail(at("control", "socket"), "%q: a file of that name is no socket: remove it, or configure another path", c.Control.Socket)
	}
	for i := range c.FlowLogs {
		if f := c.FlowLogs[i].Folder; f != "" {
			v.folder(at("flowLogs", i, "folder"), f)
		}
	}
	if !running {
		if c.Metrics.Listen != metricsOff {
			v.port(at("metrics", "listen"), c.Metrics.Listen)
		}
		if c.Control.Listen != "" {
			v.port(at("control", "listen"), c.Control.Listen)
		}
	}
	return errors.Join(v.faults...)
}

// place checks where an attachment's device would be.
func (v *validator) place(i int, a *AttachmentConfig) {
	if err := tun.CheckNamespace(a.Netns); err != nil {
		if !a.Wait || !errors.Is(err, tun.ErrNoNamespace) {
			v.fail(at("attachments", i, "netns"), "%v", err)
		}
		return
	}
	if err := tun.CheckDevice(a.Netns, a.Device); err != nil {
		v.fail(at("attachments", i, "device"), "%v", err)
	}
	if a.Interface != "" && !a.Wait {
		if err := tun.CheckInterface(a.Netns, a.Interface); err != nil {
			v.fail(at("attachments", i, "interface"), "%v", err)
		}
	}
}

// folder checks one that nsgd would trust, or make.
func (v *validator) folder(field []any, path string) {
	if err := folder.Check(path); err != nil && !errors.Is(err, os.ErrPermission) {
		v.fail(field, "%v", err)
	}
}

// port checks that somebody may listen on an address.
func (v *validator) port(field []any, address string) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		l.Close()
	case !errors.Is(err, os.ErrPermission):
		v.fail(field, "%v: a free address of this host is needed", strings.TrimPrefix(err.Error(), "listen tcp "))
	}
}

// isRunning reports whether a daemon answers on a socket, or may: not everybody may connect.
func isRunning(socket string) bool {
	conn, err := net.Dial("unix", socket)
	if err == nil {
		conn.Close()
	}
	return err == nil || errors.Is(err, os.ErrPermission)
}
