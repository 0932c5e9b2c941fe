package suggest

import (
	"net/netip"
	"sync"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// protocolNumbers are the numbers of names.
var protocolNumbers = sync.OnceValue(func() map[string]uint8 {
	numbers := map[string]uint8{}
	for n := range 256 {
		numbers[packet.ProtocolName(uint8(n))] = uint8(n)
	}
	return numbers
})

// endAt is the end behind an attachment of a name that has an address; nil where the policy has none.
func (c *Collector) endAt(attachment string, a packet.Addr) *topology.Endpoint {
	if nic, err := c.snapshot.Policy.NetworkInterface(attachment); err == nil {
		return c.snapshot.Endpoint(nic, a.Netip())
	}
	if subnet, err := c.snapshot.Policy.Subnet(attachment); err == nil {
		return c.snapshot.SenderInto(subnet, a.Netip())
	}
	return nil
}

// addBoth adds what both ends of a packet have seen. Names of attachments are empty where an end is not known.
func (c *Collector) addBoth(from, to string, sent, arrives *packet.Tuple, receiver packet.Addr, denied bool) error {
	for _, s := range []Sighting{{c.endAt(from, sent.Src), true, *sent, denied}, {c.endAt(to, receiver), false, *arrives, denied}} {
		if s.End == nil && (from == "" && s.Outbound || to == "" && !s.Outbound) {
			continue // that end has a record of its own
		}
		if err := c.Add(&s); err != nil {
			return err
		}
	}
	return nil
}

func tuple(protocol, source string, sourcePort uint16, destination string, port uint16) (t packet.Tuple, ok bool) {
	src, err := netip.ParseAddr(source)
	dst, err2 := netip.ParseAddr(destination)
	number, known := protocolNumbers()[protocol]
	return packet.Tuple{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst), SrcPort: sourcePort, DstPort: port, Proto: number}, err == nil && err2 == nil && known
}

// AddFlow adds a flow of a daemon that has the collector's policy. The error is ErrTooMany.
func (c *Collector) AddFlow(f *inspect.Flow) error {
	sent, ok := tuple(f.Protocol, f.Source, f.SourcePort, f.Destination, f.DestinationPort)
	if !ok {
		return nil
	}
	arrives := sent
	if t := f.Translated; t != nil {
		if arrives, ok = tuple(f.Protocol, t.Source, t.SourcePort, t.Destination, t.DestinationPort); !ok {
			return nil
		}
	}
	receiver := arrives.Dst
	if a, err := netip.ParseAddr(f.DeliveredTo); err == nil {
		receiver = packet.AddrFrom(a)
	}
	return c.addBoth(f.From, f.To, &sent, &arrives, receiver, false)
}

// AddEnded adds flows of a pair that have ended. What is translated on the way is not among it. The error is ErrTooMany.
func (c *Collector) AddEnded(p *inspect.EndedPair) error {
	return c.addPair(&p.RememberedPair, false)
}

// AddDropped adds packets of a pair that a rule has denied. The error is ErrTooMany.
func (c *Collector) AddDropped(p *inspect.DroppedPair) error {
	return c.addPair(&p.RememberedPair, true)
}

func (c *Collector) addPair(p *inspect.RememberedPair, denied bool) error {
	t, ok := tuple(p.Protocol, p.Source, 0, p.Destination, p.DestinationPort)
	if !ok {
		return nil
	}
	return c.addBoth(p.From, p.To, &t, &t, t.Dst, denied)
}

// AddBeginning adds a beginning of a replay of the collector's policy, or of one with the same ends. Of a connection without its
// beginning the end with the lower port counts as the server. The error is ErrTooMany.
func (c *Collector) AddBeginning(b *replay.Beginning) error {
	both := []Sighting{{End: b.Sender, Outbound: true, Tuple: b.Sent, Denied: b.Denied}, {End: b.Receiver, Tuple: b.Arrives, Denied: b.Denied}}
	if b.Midstream && b.Sent.SrcPort < b.Sent.DstPort {
		both[0], both[1] = Sighting{End: b.Receiver, Outbound: true, Tuple: b.Arrives.Reverse()}, Sighting{End: b.Sender, Tuple: b.Sent.Reverse()}
	}
	if b.Recorded {
		for i := range both {
			if both[i].End == nil {
				continue
			}
			if err := c.Add(&both[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range both { // denied at one end is denied
		if e := c.own(both[i].End); e != nil {
			s := Sighting{End: e, Outbound: both[i].Outbound, Tuple: both[i].Tuple}
			both[0].Denied = both[0].Denied || c.Judge(&s)
		}
	}
	for i := range both {
		if both[i].Denied = both[0].Denied; both[i].End == nil || both[i].End.Subnet == nil && both[1-i].End != nil && both[1-i].End.Subnet != nil {
			continue // outside, which has no rules
		}
		if err := c.Add(&both[i]); err != nil {
			return err
		}
	}
	return nil
}

// own is the collector's end for one of another snapshot; nil where it has none.
func (c *Collector) own(e *topology.Endpoint) *topology.Endpoint {
	if e == nil || e.Subnet == nil {
		return nil
	}
	if at, known := c.index[endID(e)]; known {
		return c.ends[at]
	}
	return nil
}
