//go:build !linux

package tun

import "errors"

// errLinux is the error of every call that needs Linux.
var errLinux = errors.New("tun: only Linux has network namespaces and the TUN devices that this needs")

// State is a daemon's state directory; only on Linux.
type State struct{}

// OpenState fails: only Linux has network namespaces.
func OpenState(string) (*State, error) { return nil, errLinux }

// Open fails: only Linux has these devices.
func Open(Config) (Device, Offload, error) { return nil, Off, errLinux }

// Do fails: only Linux has network namespaces.
func Do(string, func() error) error { return errLinux }
