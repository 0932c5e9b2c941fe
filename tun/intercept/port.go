package intercept

import "net/netip"

// Port is an interface before which nsgd stands.
type Port struct {
	Interface string
	// Wait says that the interface may come later.
	Wait bool
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

// Rest is a TUN device for what is behind no port: what comes from its prefixes is read there.
type Rest struct {
	Device   string
	Prefixes []netip.Prefix
	// Near says that the prefixes are inside the virtual networks.
	Near bool
	// Local says that what nsgd writes there is for this host itself.
	Local bool
}
