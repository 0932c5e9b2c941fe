package topology

import (
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Way says what becomes of a flow's first packet: who receives it and with which addresses.
type Way struct {
	// To is whom the packet reaches; where Snapshot.Way gives a reason to drop it, whom it
	// would have reached, or nil.
	To *Endpoint
	// Arrives is the packet as To sees it. With Ports, Src and SrcPort are still to be
	// chosen; of an ICMP echo SrcPort is the identifier.
	Arrives packet.Tuple
	// Ports are what source address and port come from, when several flows share an address;
	// nil: Arrives is whole. The slice is shared and must not be changed.
	Ports []PortRange
	// Translated says that Arrives differs from what was sent, or that Ports is set.
	Translated bool
	// Floating says that the packet is delivered untouched to a backend that has not got the
	// address.
	Floating bool
	// Closed says that the packet came by a Standard address, and that no NSG stands before To: it
	// must be dropped.
	Closed bool
	// Idle is the idle timeout of the translation for TCP; 0: the flow's own. UDP has IdleUDP.
	Idle time.Duration
	// Reset says that both ends get a RST when the flow times out (enableTcpReset).
	Reset bool
}

// IdleUDP is the idle timeout of translated UDP flows, which no resource of Azure changes.
const IdleUDP = 4 * time.Minute

// PortRange is an address and the ports of it that flows may take, both ends included.
type PortRange struct {
	Address     packet.Addr
	First, Last uint16
}

// Translates reports whether the policy translates anything; false: Route says all.
func (s *Snapshot) Translates() bool { return false }

// Way is Route, and what translation adds to it, for a packet that src sends. It allocates
// nothing.
func (s *Snapshot) Way(src *Endpoint, t *packet.Tuple, w *Way) packet.Drop {
	*w = Way{Arrives: *t}
	var drop packet.Drop
	w.To, drop = s.Route(src, t.Src, t.Dst)
	return drop
}
