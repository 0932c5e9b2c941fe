//go:build !nocluster

package main

import (
	"fmt"
	"sync"
	"time"
)

// gate holds the engine's fence shut for as long as the kernel does not carry packets between hosts: what is written to a
// device that the kernel does not know reaches this host itself. Its methods take a nil one, which is open. Safe for
// concurrent use.
type gate struct {
	engine func(until time.Duration)

	mu    sync.Mutex
	until time.Duration // what the lease allows; guarded by mu
	err   error         // why it is shut; nil: it is open; guarded by mu
}

// fence is for cluster.AgentOptions.
func (g *gate) fence(until time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = until
	if g.err == nil {
		g.engine(until)
	}
}

func (g *gate) shut(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	g.engine(0)
}

func (g *gate) open() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		g.err = nil
		g.engine(g.until)
	}
}

// faults is why it is shut; none: it is open.
func (g *gate) faults() []string {
	if g == nil {
		return []string{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		return []string{}
	}
	return []string{fmt.Sprintf("nothing is carried until the kernel carries packets between hosts: %v", g.err)}
}
