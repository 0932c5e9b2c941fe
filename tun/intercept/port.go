package intercept

import (
	"net"
	"net/netip"
)

// Port is an interface before which nsgd stands.
type Port struct {
	// Interface is its name. Empty: it is the port of Bridge behind which the guest is.
	Interface string
	// Bridge has the interface as a port where that has no name of its own. Guests' ports of such a bridge that no
	// Port stands for are closed.
	Bridge string
	// Process finds a process in the guest's network namespace. Nil: the guest is who answers for one of Addresses.
	Process func() (pid int, err error) `json:"-"`
	// Guest is how messages call a port without Interface. No two ports share one.
	Guest string
	// MAC is the guest's, of one that is found by Addresses; nil: any.
	MAC net.HardwareAddr
	// Wait says that the interface may come later.
	Wait bool
	// Shut says that an interface of that name is closed also while no nsgd runs, from the moment when it comes.
	Shut bool
	// Host says that this host itself is behind the interface.
	Host bool
	// Device is the TUN device of the NIC, in the same namespace.
	Device string
	// Addresses are the NIC's own. Private ones, and public ones that are the NIC's alone.
	Addresses []netip.Addr
	// Near are the prefixes of the NIC's subnet.
	Near []netip.Prefix
	// Forwards says that the NIC also sends and receives for other addresses.
	Forwards bool
	// Gateway says that nsgd answers the guest's solicitations at the interface, as its gateway. They go no further.
	Gateway bool
}

// String is the interface's name, or Guest.
func (p *Port) String() string {
	if p.Interface != "" {
		return p.Interface
	}
	return p.Guest
}

// Rest is a TUN device for what is behind no port: what comes from its prefixes is read there.
type Rest struct {
	Device   string
	Prefixes []netip.Prefix
	// Near says that the prefixes are inside the virtual networks.
	Near bool
	// Local says that what nsgd writes there is for this host itself.
	Local bool
}
