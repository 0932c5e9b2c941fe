package topology

import (
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// Service is a service of Azure's platform that virtual machines reach past their NSGs.
type Service uint8

// The services, with the ports that Azure's documents give. Any other packet to a platform
// address is judged like every packet.
const (
	NoService      Service = iota
	DHCP                   // 168.63.129.16 udp 67
	DNS                    // 168.63.129.16 udp and tcp 53
	IMDS                   // 169.254.169.254 tcp 80, for Network Watcher's agent too
	WireServer             // 168.63.129.16 tcp 80, 443 and 32526: the VM agent, health
	NetworkWatcher         // 168.63.129.16 tcp 8037
	LKM                    // license keys: the KMS addresses tcp 1688
	NumServices
)

// String is the service's name in metrics and answers.
func (s Service) String() string {
	return [NumServices]string{"none", "dhcp", "dns", "imds", "wire_server", "network_watcher", "lkm"}[s]
}

// Slot is the service's slot in flow records and counters, behind those of rules.
func (s Service) Slot() uint32 { return MaxRules + uint32(s) }

// ServiceOfSlot is the service of a slot, or NoService for a rule's slot.
func ServiceOfSlot(slot uint32) Service {
	if slot < MaxRules {
		return NoService
	}
	return Service(slot - MaxRules)
}

var lkmAddrs = func() (list []packet.Addr) {
	for _, p := range ruleset.PlatformServiceOf(ruleset.TagPlatformLKM).Addresses {
		list = append(list, packet.AddrFrom(p.Addr()))
	}
	return list
}()

// Service is the platform's service that a new flow of the endpoint goes to.
func (e *Endpoint) Service(k *packet.Tuple) Service {
	if e.Subnet == nil {
		return NoService
	}
	tcp := k.Proto == packet.ProtoTCP
	if !tcp && k.Proto != packet.ProtoUDP {
		return NoService
	}
	switch k.Dst {
	case platformAddrs[0]:
		switch k.DstPort {
		case 53:
			return DNS
		case 67:
			if !tcp {
				return DHCP
			}
		case 80, 443, 32526:
			if tcp {
				return WireServer
			}
		case 8037:
			if tcp {
				return NetworkWatcher
			}
		}
	case platformAddrs[1]:
		if tcp && k.DstPort == 80 {
			return IMDS
		}
	default:
		if tcp && k.DstPort == 1688 && !e.routes.hasDefault {
			for _, a := range lkmAddrs {
				if k.Dst == a {
					return LKM
				}
			}
		}
	}
	return NoService
}

// ServiceEnd is an address, protocol and port where the platform offers a service.
type ServiceEnd struct {
	Service  Service
	Address  netip.Addr
	Protocol ruleset.Protocol // TCP or UDP
	Port     uint16
}

// Services lists the services that Service knows for the endpoint.
func (e *Endpoint) Services() (list []ServiceEnd) {
	if e.Subnet == nil {
		return nil
	}
	dns, imds := PlatformAddresses[0], PlatformAddresses[1]
	list = []ServiceEnd{
		{DHCP, dns, ruleset.UDP, 67}, {DNS, dns, ruleset.UDP, 53}, {DNS, dns, ruleset.TCP, 53}, {IMDS, imds, ruleset.TCP, 80},
		{WireServer, dns, ruleset.TCP, 80}, {WireServer, dns, ruleset.TCP, 443}, {WireServer, dns, ruleset.TCP, 32526},
		{NetworkWatcher, dns, ruleset.TCP, 8037},
	}
	if !e.routes.hasDefault {
		for _, a := range lkmAddrs {
			list = append(list, ServiceEnd{LKM, a.Netip(), ruleset.TCP, 1688})
		}
	}
	return list
}

// PlatformRule is the first rule that names the platform's service of a packet. It is -1 when
// there is none, which is the usual case.
func (t *Table) PlatformRule(k *packet.Tuple) int {
	if t.platform == nil {
		return -1
	}
	if i := t.platform.FirstMatch(k); i >= 0 {
		return t.platformRules[i]
	}
	return -1
}

// NamesService reports whether a rule, by its index in Rules, names a service of the platform.
func (t *Table) NamesService(rule int) bool { return slices.Contains(t.platformRules, rule) }

// narrowToService narrows a rule that names an AzurePlatform tag to that service's ports, since
// services share addresses.
func narrowToService(r *ruleset.Rule, c *classifier.Rule) (names bool) {
	for _, side := range []struct {
		tag      string
		ports    *[]ruleset.PortRange
		prefixes *[]netip.Prefix
	}{{r.Source.Tag, &c.SourcePorts, &c.Sources}, {r.Destination.Tag, &c.DestinationPorts, &c.Destinations}} {
		service := ruleset.PlatformServiceOf(side.tag)
		if service == nil {
			continue
		}
		names = true
		var ok bool
		if c.Protocol, *side.ports, ok = service.Narrow(c.Protocol, *side.ports); !ok {
			*side.prefixes = nil
		}
	}
	return names
}

// platformTable compiles the rules that name the platform's services into a table of their own.
func (t *Table) platformTable(rules []int) {
	if t.platformRules = rules; len(rules) == 0 {
		return
	}
	some := make([]classifier.Rule, len(rules))
	for i, rule := range rules {
		some[i] = t.compiled[rule]
	}
	t.platform = classifier.Compile(some)
}
