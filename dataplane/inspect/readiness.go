package inspect

import (
	"context"
	"fmt"
	"strings"
)

// maxReasons bounds the attachments and interfaces that Unready names.
const maxReasons = 10

// Unready says why the daemon does not carry all that its configuration asks for; empty: it does. The workers have until
// ctx ends to show that they turn. An interface that is missing or down is no reason: its guest may be off.
func (s *Service) Unready(ctx context.Context) []string {
	reasons := s.lostParts()
	if len(reasons) > maxReasons {
		reasons = append(reasons[:maxReasons], fmt.Sprintf("and %d more", len(reasons)-maxReasons))
	}
	if stuck := s.options.Engine.StuckWorkers(ctx); len(stuck) > 0 {
		words := strings.Trim(fmt.Sprint(stuck), "[]")
		reasons = append(reasons, fmt.Sprintf("workers that carry nothing: %s of %d", words, s.options.Engine.Workers()))
	}
	return reasons
}

// lostParts names the attachments whose device is gone and the interfaces that may be open.
func (s *Service) lostParts() (reasons []string) {
	devices := s.options.Engine.Devices()
	if devices == nil {
		return []string{"no device is open yet"}
	}
	snapshot := s.Snapshot()
	for i, d := range devices {
		if d == nil || i >= len(snapshot.Attachments) { // a reload is under way, or the slot is vacant
			continue
		}
		if _, ok := d.Stats(); !ok {
			reasons = append(reasons, fmt.Sprintf("attachment %s: the device %s is gone", snapshot.Attachments[i].Name, d.Name()))
		}
	}
	if s.options.Interfaces == nil {
		return reasons
	}
	for _, f := range s.options.Interfaces() {
		if f.State == Replaced {
			reasons = append(reasons, fmt.Sprintf("interface %s: somebody changed nsgd's filters, it may be open", f.Interface))
		}
	}
	return reasons
}
