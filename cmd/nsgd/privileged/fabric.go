package privileged

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/nsgd/nsgd/tun/fabric"
)

// FabricPlace is what the configuration names of the fabric between hosts, which is in nsgd's own namespace.
type FabricPlace struct {
	Underlay netip.Addr
	Port     uint16
	Device   string
}

// fabricHold has the fabric.
type fabricHold struct {
	mu   sync.Mutex
	open *fabric.Fabric // nil: none
}

// leave gives the fabric back. It stays in the kernel.
func (h *fabricHold) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != nil {
		h.open.Leave()
		h.open = nil
	}
}

// end removes the fabric that this process has.
func (h *fabricHold) end() (err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != nil {
		err = h.open.Close()
		h.open = nil
	}
	return err
}

// fabric checks that a state is within what the configuration names, with the daemon's own devices as tunnels.
func (p *Places) fabric(s *fabric.State) error {
	if p.Fabric == nil {
		return errors.New("fabric: the configuration has no cluster, so that the privileged part refuses it")
	}
	if is := (FabricPlace{s.Underlay, s.Port, s.Device}); is != *p.Fabric {
		return fmt.Errorf("fabric: %+v: the configuration has %+v", is, *p.Fabric)
	}
	return nil
}

// CheckFabric is fabric.Check.
func (s *server) CheckFabric(state fabric.State, _ *None) error {
	p, err := s.places()
	if err == nil {
		err = p.fabric(&state)
	}
	if err == nil {
		err = fabric.Check("", state)
	}
	return err
}

// Fabric is fabric's Apply. The first one takes over what an earlier process has left.
func (s *server) Fabric(state fabric.State, _ *None) error {
	p, err := s.places()
	if err == nil {
		err = p.fabric(&state)
	}
	if err == nil {
		err = s.tunnels(&state)
	}
	if err != nil {
		return err
	}
	h := &s.fabric
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		if h.open, err = fabric.Open(""); err != nil {
			return err
		}
	}
	return h.open.Apply(state)
}

// tunnels checks that those of a state are the daemon's own devices: what it sends over another one is not its own.
func (s *server) tunnels(state *fabric.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := map[string]bool{}
	for _, d := range s.devices {
		if d.namespace == "" {
			own[d.Name()] = true
		}
	}
	for _, t := range state.Tunnels {
		if !own[t.TUN] {
			return fmt.Errorf("fabric: tunnel %d: TUN %q: this nsgd has not opened it", t.VNI, t.TUN)
		}
	}
	return nil
}

// FabricCounts is fabric's Counts.
func (s *server) FabricCounts(_ None, counts *fabric.Counts) (err error) {
	h := &s.fabric
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		return errors.New("fabric: there is none")
	}
	*counts, err = h.open.Counts()
	return err
}

// UnderlayMTU is that of the device with the underlay's address.
func (s *server) UnderlayMTU(_ None, mtu *int) error {
	p, err := s.places()
	if err != nil {
		return err
	}
	if p.Fabric == nil {
		return errors.New("fabric: the configuration has no cluster")
	}
	list, err := net.Interfaces()
	for _, i := range list {
		addresses, failed := i.Addrs()
		err = errors.Join(err, failed)
		for _, a := range addresses {
			if prefix, failed := netip.ParsePrefix(a.String()); failed == nil && prefix.Addr() == p.Fabric.Underlay {
				*mtu = i.MTU
				return nil
			}
		}
	}
	return errors.Join(err, fmt.Errorf("fabric: underlay %v: no device has the address", p.Fabric.Underlay))
}

// RemoveFabric removes what an earlier process has left, where the daemon has no fabric of its own.
func (s *server) RemoveFabric(_ None, removed *[]string) (err error) {
	h := &s.fabric
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open != nil {
		return errors.New("fabric: it is in use")
	}
	*removed, err = fabric.Remove("")
	return err
}

// CheckFabric is fabric.Check in nsgd's own namespace.
func (c *Client) CheckFabric(s fabric.State) error { return c.call("CheckFabric", s, &None{}) }

// Fabric makes a state what the kernel carries between hosts: see fabric.Fabric's Apply. End removes it, Leave leaves
// it to the next process.
func (c *Client) Fabric(s fabric.State) error { return c.call("Fabric", s, &None{}) }

// FabricCounts are what passed and what was dropped.
func (c *Client) FabricCounts() (counts fabric.Counts, err error) {
	err = c.call("FabricCounts", None{}, &counts)
	return counts, err
}

// UnderlayMTU is that of the device with the underlay's address, for those who may not ask the kernel.
func (c *Client) UnderlayMTU() (mtu int, err error) {
	err = c.call("UnderlayMTU", None{}, &mtu)
	return mtu, err
}

// RemoveFabric removes a fabric that an earlier process has left, and returns the names of devices and tables.
func (c *Client) RemoveFabric() (removed []string, err error) {
	err = c.call("RemoveFabric", None{}, &removed)
	return removed, err
}
