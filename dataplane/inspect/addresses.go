package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
)

// DeviceAddresses are the addresses of an attachment's device: those that the policy
// gives, then the configured ones.
func DeviceAddresses(a *topology.Attachment, configured []netip.Prefix) []netip.Prefix {
	all := slices.Clone(a.Addresses)
	for _, p := range configured {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// readdressing is the change of one device's addresses.
type readdressing struct {
	device interface {
		Name() string
		SetAddresses([]netip.Prefix) error
	}
	from, to []netip.Prefix
}

// readdress gives the devices the addresses of the next snapshot.
func (s *Service) readdress(next *topology.Snapshot) error {
	var moves []readdressing
	now := s.Snapshot()
	for i, d := range s.options.Engine.Devices() {
		if s.options.Places[i].Bare {
			continue
		}
		configured := s.options.Places[i].Addresses
		moves = append(moves, readdressing{
			device: d, from: DeviceAddresses(now.Attachments[i], configured), to: DeviceAddresses(next.Attachments[i], configured),
		})
	}
	return readdress(moves)
}

// readdress changes the addresses of every device, or of none. When a device fails, it and
// those before it get their old addresses back.
func readdress(moves []readdressing) error {
	for i, m := range moves {
		if slices.Equal(m.from, m.to) {
			continue
		}
		err := m.device.SetAddresses(m.to)
		if err == nil {
			continue
		}
		errs := []error{fmt.Errorf("device %s: set addresses %v: %w", m.device.Name(), m.to, err)}
		for _, m := range moves[:i+1] {
			if slices.Equal(m.from, m.to) {
				continue
			}
			if err := m.device.SetAddresses(m.from); err != nil {
				errs = append(errs, fmt.Errorf("device %s: put back addresses %v: %w", m.device.Name(), m.from, err))
			}
		}
		return errors.Join(errs...)
	}
	return nil
}
