// Package logringtest holds what tests give a log to, in place of a stream that somebody reads.
package logringtest

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer keeps what several goroutines write. The zero value is ready; safe for concurrent use.
type Buffer struct {
	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

// String is all that has been written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// Count is how often a text has been written.
func (b *Buffer) Count(text string) int { return strings.Count(b.String(), text) }
