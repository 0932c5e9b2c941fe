package tun

import "os"

// ClosedQueue is the queue of a place without a device: it takes nothing and gives nothing.
type ClosedQueue struct{}

// Read implements Queue; nobody watches it.
func (ClosedQueue) Read([]byte) (int, error) { return 0, os.ErrClosed }

// Write implements Queue.
func (ClosedQueue) Write([]byte) error { return os.ErrClosed }

// WriteParts implements Queue.
func (ClosedQueue) WriteParts([][]byte) error { return os.ErrClosed }

// SetSlow implements Queue.
func (ClosedQueue) SetSlow(bool) {}

// Offload implements Queue.
func (ClosedQueue) Offload() Offload { return Off }

// FD implements Queue; it has none.
func (ClosedQueue) FD() int { return -1 }

var _ Queue = ClosedQueue{}
