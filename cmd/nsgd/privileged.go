package main

import (
	"errors"
	"maps"
	"os"
	"sync"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/spf13/cobra"
)

// connectPrivileged connects the daemon to its privileged part. Without a socket of systemd's this process splits
// first, and goes on without privileges.
func connectPrivileged(path, socket string) (*privileged.Client, error) {
	if socket != "" {
		return privileged.Dial(socket)
	}
	if privileged.Given() {
		return privileged.Connect()
	}
	c, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	return privileged.Split(c.User, "--config", path)
}

func newPrivileged() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:    privileged.Verb + " --config FILE",
		Short:  "Do what nsgd run asks for over a socket, within what a configuration names; nsgd run starts it",
		Args:   noArgs,
		Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			if path == "" {
				return usageError{errors.New(privileged.Verb + ": --config is missing")}
			}
			c, err := loadConfig(path)
			if err != nil {
				return err
			}
			p, err := c.privilegedPlaces()
			if err != nil {
				return err
			}
			return privileged.Run((&placesOfFile{path: path, places: p}).now)
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file; its policy is not read")
	return c
}

// privilegedPlaces are where the privileged part may do something.
func (c *Config) privilegedPlaces() (*privileged.Places, error) {
	access, err := c.Control.access()
	if err != nil {
		return nil, err
	}
	access.User, err = privileged.UserID(c.User)
	p := &privileged.Places{Namespaces: map[string]bool{}, Interfaces: map[string]bool{}, Socket: c.Control.Socket, Access: access}
	addPlaces(p, c)
	if a := c.platform(); a != nil {
		p.Platform, p.PlatformDevice, p.Services = a.Netns, a.Device, a.PlatformServices
	}
	return p, err
}

// placesOfFile are the places of a configuration file, with those that it has got since.
type placesOfFile struct {
	path string

	mu     sync.Mutex
	places *privileged.Places
	seen   os.FileInfo // of the file when it was read
}

// now adds the places of a file that has changed. What has left the file stays until the daemon stops, because it may
// be in use. A file with a fault adds nothing: the daemon refuses it too.
func (f *placesOfFile) now() (*privileged.Places, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	is, err := os.Stat(f.path)
	if err != nil || f.seen != nil && os.SameFile(is, f.seen) && is.ModTime().Equal(f.seen.ModTime()) && is.Size() == f.seen.Size() {
		return f.places, nil
	}
	f.seen = is
	if c, err := loadConfig(f.path); err == nil {
		next := *f.places
		next.Namespaces, next.Interfaces = maps.Clone(next.Namespaces), maps.Clone(next.Interfaces)
		addPlaces(&next, c)
		f.places = &next
	}
	return f.places, nil
}

// addPlaces adds the namespaces of a configuration, and what leads to other hosts.
func addPlaces(p *privileged.Places, c *Config) {
	if k := c.Cluster; k != nil {
		p.Namespaces[""] = true
		p.Fabric = &privileged.FabricPlace{Underlay: k.Underlay.Addr, Port: uint16(k.Port), Device: fabricDevice}
	}
	for i := range c.Attachments {
		a := &c.Attachments[i]
		p.Namespaces[a.Netns] = true
		if a.standsBefore() {
			p.Interfaces[a.Netns] = true
		}
	}
}
