// Package privileged splits the daemon in two. The daemon carries packets and answers, as a user of its own and without
// any capability. The privileged part, a process of the same program, does the few things that need one: it makes
// namespaces and devices, stands before interfaces, has the kernel carry packets between hosts, and opens sockets in
// namespaces.
//
// The daemon asks over a socket (rpc), and gets descriptors over it. The privileged part reads the configuration
// by itself. It refuses what is outside the places that the configuration names: see Places. So a daemon that
// was taken over can do there what nsgctl attach can do, and nothing elsewhere.
//
// Each of the two ends when the other does. The privileged part then leaves what a daemon that was killed leaves.
package privileged

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/tun"
)

// Places are what the configuration names.
type Places struct {
	// Namespaces are those of attachments: devices may be made there.
	Namespaces map[string]bool
	// Interfaces are the namespaces where attachments have interfaces: nsgd may stand before interfaces there.
	Interfaces map[string]bool
	// Platform is the namespace of the platform's attachment, and PlatformDevice its device; empty: there is none.
	Platform, PlatformDevice string
	// Services says that nsgd answers at the platform's addresses.
	Services bool
	// Fabric is what carries packets to other hosts; nil: nothing does.
	Fabric *FabricPlace
	// Socket is the path of the control socket, and Access who may connect to it.
	Socket string
	Access control.Access
}

const (
	// maxDevices bounds the devices at a time, and maxPrefixes the addresses or routes of one.
	maxDevices, maxPrefixes = 1 << 16, 4096
	// The shortest prefixes of routes in the host's own namespace: shorter ones would take all that the host sends.
	shortest4, shortest6 = 4, 7
)

// device checks what is asked for. A namespace that is made is empty, so that any name may be asked for: one that is
// there already is refused when it is made.
func (p *Places) device(c *tun.Config) error {
	if !c.CreateNamespace && !p.Namespaces[c.Namespace] {
		return fmt.Errorf("device %q: %w", c.Name, p.refuse("namespace", c.Namespace))
	}
	if len(c.Addresses) > maxPrefixes {
		return fmt.Errorf("device %q: %d addresses: allowed are %d", c.Name, len(c.Addresses), maxPrefixes)
	}
	return checkRoutes(c.Namespace, c.Routes)
}

// checkRoutes checks that a device of the host's own namespace takes only some networks.
func checkRoutes(namespace string, routes []netip.Prefix) error {
	if len(routes) > maxPrefixes {
		return fmt.Errorf("%d routes: allowed are %d", len(routes), maxPrefixes)
	}
	for _, r := range routes {
		least := shortest4
		if r.Addr().Is6() {
			least = shortest6
		}
		if namespace == "" && r.Bits() < least {
			return fmt.Errorf("route %v: in the host's own namespace a prefix has %d bits or more", r, least)
		}
	}
	return nil
}

// interfaces checks that nsgd may stand before interfaces in a namespace.
func (p *Places) interfaces(namespace string) error {
	if !p.Interfaces[namespace] {
		return p.refuse("interfaces of namespace", namespace)
	}
	return nil
}

func (p *Places) refuse(what, namespace string) error {
	return fmt.Errorf("%s %q: the configuration has no attachment there, so that the privileged part refuses it: allowed are places of nsgd.yaml", what, namespace)
}
