package ask

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"go4.org/netipx"
)

// unnamedProtocol is for experiments (RFC 3692): no rule names it.
const unnamedProtocol = 253

// witness is the packet of a profile that is judged for all of it: one that a rule matches
// exactly when it matches the whole profile. So it avoids the rules that stand before the
// first one for the whole profile and hold a part of it. There is none when such rules
// leave nothing of the profile, and then it has no single answer.
func (p *profile) witness(stages []topology.Stage) (packet.Packet, error) {
	if !p.AnyProtocol {
		p.protocol = p.Traffic.Protocol(p.ipv6)
		return p.outside(p.divided(stages))
	}
	// Any protocol has ports as long as the question has one.
	candidates := []uint8{packet.ProtoTCP, packet.ProtoUDP}
	if p.AnyPort {
		candidates = append(candidates, unnamedProtocol)
	}
	var named []string
	for _, p.protocol = range candidates {
		held := p.divided(stages)
		if named = held.naming(p.protocol); len(named) == 0 {
			return p.outside(held)
		}
	}
	return packet.Packet{}, fmt.Errorf("protocol %q: the answer is not one for all protocols, as %s tell: ask for each", "*", listNames(named))
}

// division are rules that hold a part of a profile.
type division struct {
	rules []ruleset.Protocol // by name, the same order
	names []string

	sources, destinations netipx.IPSetBuilder // of the rules that hold a part of that field
	ports                 []ruleset.PortRange
}

// divided collects the parts that rules before the first match of the whole hold, up to
// the stage that denies the whole.
func (p *profile) divided(stages []topology.Stage) *division {
	d := &division{}
	service, _ := p.service()
	if service == topology.NoService {
		p.divideServices(d)
	}
	for i := range stages {
		t := stages[i].Table
		rules := t.Resolved()
		for j := range rules {
			if service != topology.NoService && !t.NamesService(j) {
				continue // nobody asks it
			}
			r := &rules[j]
			f := p.fields(r)
			if f.least() == everything {
				// Of several rule collections of admin rules another one may decide.
				if t.Rules[j].Access == ruleset.Deny && stages[i].Association != topology.NetworkManagerAssociation {
					return d
				}
				break
			}
			if f.least() == nothing {
				continue
			}
			d.names = append(d.names, t.Rules[j].PrefixedName())
			d.rules = append(d.rules, r.Protocol)
			if f.source == some {
				d.sources.AddSet(p.setOf(r.Sources))
			}
			if f.destination == some {
				d.destinations.AddSet(p.setOf(r.Destinations))
			}
			if f.destinationPort == some {
				d.ports = append(d.ports, r.DestinationPorts...)
			}
		}
	}
	return d
}

// divideServices adds the services of the platform, which no rule decides about.
func (p *profile) divideServices(d *division) {
	for i := range p.services {
		e := &p.services[i]
		f := p.serviceFields(e)
		if f.least() == nothing {
			continue
		}
		protocol := e.Protocol
		if f.destination == some || f.destinationPort == some {
			protocol = ruleset.AnyProtocol // it is avoided there, whatever the protocol
		}
		d.names, d.rules = append(d.names, serviceName(e)), append(d.rules, protocol)
		if f.destination == some {
			d.destinations.AddSet(serviceAddress(e, p.ipv6))
		}
		if f.destinationPort == some {
			d.ports = append(d.ports, ruleset.PortRange{First: e.Port, Last: e.Port})
		}
	}
}

// naming are the rules that name a protocol.
func (d *division) naming(protocol uint8) []string {
	var names []string
	for i, named := range d.rules {
		if named == ruleset.TCP && protocol == packet.ProtoTCP || named == ruleset.UDP && protocol == packet.ProtoUDP {
			names = append(names, d.names[i])
		}
	}
	return names
}

// outside is a packet of the profile that none of the rules holds.
func (p *profile) outside(d *division) (packet.Packet, error) {
	none := func(field string) (packet.Packet, error) {
		return packet.Packet{}, fmt.Errorf("%s: the answer is not one for all that it stands for: %s divide it; ask for less", field, listNames(d.names))
	}
	src, ok := firstOutside(p.source, setOf(&d.sources))
	if !ok {
		return none("source")
	}
	dst, ok := firstOutside(p.destination, setOf(&d.destinations))
	if !ok {
		return none("destination")
	}
	port := int(p.Port)
	for p.AnyPort && port <= 65535 && inPorts(d.ports, uint16(port)) {
		port++
	}
	if port > 65535 {
		return none("destinationPort")
	}
	w := packet.Packet{Tuple: packet.Tuple{Src: packet.AddrFrom(src), Dst: packet.AddrFrom(dst), DstPort: uint16(port), Proto: p.protocol}, Segments: 1}
	asFirst(&w)
	return w, nil
}

// listNames names the first few rules.
func listNames(names []string) string {
	const most = 3
	names = slices.Compact(slices.Clone(names))
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
