package inspect

import (
	"slices"
	"time"
)

const (
	// MaxReloads is how many reloads are remembered.
	MaxReloads = 256
	// maxReason bounds what is remembered of a refusal, in bytes; the log has all of it.
	maxReason = 4096
)

// ReloadList are the last reloads, the newest first.
type ReloadList struct {
	Reloads []ReloadEntry `json:"reloads"`
	// Earlier counts those that are not remembered any more.
	Earlier uint64 `json:"earlier"`
}

// ReloadEntry is how one reload went.
type ReloadEntry struct {
	ID string `json:"id"` // in the log
	// Cause is who or what asked for it: see Reloads.LastCause.
	Cause        string    `json:"cause"`
	Began        time.Time `json:"began"`
	Milliseconds float64   `json:"milliseconds"`
	// Generation is that of the policy in force behind it.
	Generation uint64 `json:"generation"`
	// Error is why it was refused or taken back, at most maxReason bytes of it; absent when it was not.
	Error string `json:"error,omitempty"`
}

// note remembers a reload. mu is held.
func (s *Service) note(b *booking, err error) {
	entry := ReloadEntry{ID: b.id, Cause: b.cause, Began: b.begun, Milliseconds: s.reloads.LastMilliseconds, Generation: s.Snapshot().Generation}
	if err != nil {
		entry.Error = err.Error()
		if len(entry.Error) > maxReason {
			entry.Error = entry.Error[:maxReason] + "..."
		}
	}
	if len(s.journal) == MaxReloads {
		s.journal = slices.Delete(s.journal, 0, 1)
	}
	s.journal = append(s.journal, entry)
}

// ReloadList lists the last reloads.
func (s *Service) ReloadList() *ReloadList {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := &ReloadList{Reloads: append([]ReloadEntry{}, s.journal...), Earlier: s.reloads.Succeeded + s.reloads.Failed - uint64(len(s.journal))}
	slices.Reverse(list.Reloads)
	return list
}
