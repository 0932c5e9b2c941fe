package topology

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// Service is what Azure's platform offers to virtual machines past their NSGs.
type Service uint8

// The services. Azure's documents name DHCP, DNS, IMDS, health and the wire server; the ports
// are those that they give. What else goes to a platform address is judged like any packet.
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

// Slot is what flow records and counters know a service by: beyond those of rules.
func (s Service) Slot() uint32 { return MaxRules + uint32(s) }

// ServiceOfSlot is the service of a slot; NoService for a rule's.
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

// Service is the platform's service that a new flow of the endpoint asks for.
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
		if tcp && k.DstPort == 1688 && !e.routes.everything {
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

// Services are all services that the endpoint's flows may ask for: what Service knows, as a list.
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
	if !e.routes.everything {
		for _, a := range lkmAddrs {
			list = append(list, ServiceEnd{LKM, a.Netip(), ruleset.TCP, 1688})
		}
	}
	return list
}

// PlatformRule is the first rule that names the platform's service which k asks for; -1 when
// there is none, as nearly always.
func (t *Table) PlatformRule(k *packet.Tuple) int {
	if t.platform == nil {
		return -1
	}
	if i := t.platform.FirstMatch(k); i >= 0 {
		return t.platformRules[i]
	}
	return -1
}

// NamesService reports whether a rule, by its place in Rules, names a service of the platform.
func (t *Table) NamesService(rule int) bool { return slices.Contains(t.platformRules, rule) }

// narrowToService holds a rule that names an AzurePlatform tag to that service's port: the
// address alone is others' too.
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

// platformTable compiles the rules that name the platform's services by themselves.
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

// Subscription is what decides whether Azure lets TCP port 25 out to the internet. The zero
// value is an enterprise agreement, which does.
type Subscription struct {
	// Type is enterprise, payg (pay as you go), msdn (and other benefit, student and trial
	// offers) or csp (cloud solution provider); empty: enterprise.
	Type string
	// CreatedBefore20171115 and SMTPExempt let a payg or csp subscription send.
	CreatedBefore20171115, SMTPExempt bool
}

// SubscriptionTypes are the values of Subscription.Type, in words.
const SubscriptionTypes = "enterprise, payg, msdn and csp"

// Check says what is wrong with the subscription: field is the configuration's key.
func (s *Subscription) Check() (field string, err error) {
	switch s.Type {
	case "payg", "csp":
		return "", nil
	case "", "enterprise", "msdn":
		why := map[bool]string{true: "port 25 is blocked always", false: "port 25 is not blocked"}[s.Type == "msdn"]
		switch {
		case s.CreatedBefore20171115:
			return "createdBefore20171115", fmt.Errorf("true: allowed with subscription payg and csp only; with %s %s", s.name(), why)
		case s.SMTPExempt:
			return "smtpExempt", fmt.Errorf("true: allowed with subscription payg and csp only; with %s %s", s.name(), why)
		}
		return "", nil
	}
	return "subscription", fmt.Errorf("%q: allowed are %s", s.Type, SubscriptionTypes)
}

func (s *Subscription) name() string {
	if s.Type == "" {
		return "enterprise"
	}
	return s.Type
}

// BlocksSMTP reports whether TCP port 25 is blocked towards the internet.
func (s *Subscription) BlocksSMTP() bool {
	switch s.Type {
	case "", "enterprise":
		return false
	case "payg", "csp":
		return !s.CreatedBefore20171115 && !s.SMTPExempt
	}
	return true
}

const smtpPort = 25

// SMTPBlocked reports a flow that the platform blocks whatever the rules say: from a virtual
// network to TCP port 25 outside, under a subscription without it.
func (s *Snapshot) SMTPBlocked(src, dst *Endpoint, k *packet.Tuple) bool {
	return k.DstPort == smtpPort && s.BlockSMTP && k.Proto == packet.ProtoTCP && src != nil && src.Subnet != nil && dst == s.outside
}
