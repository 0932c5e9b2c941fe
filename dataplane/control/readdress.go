package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/topology"
)

// addresses are all that an attachment's device holds.
func (p *Place) addresses(a *topology.Attachment) []netip.Prefix {
	return DeviceAddresses(a, p.Addresses)
}

// DeviceAddresses are the addresses of an attachment's device: those that the policy
// gives and the configured ones behind them.
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

// readdress changes the addresses of every device that needs it, or of none: when
// one fails, those before it and the failed one itself get their old addresses back.
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
