package testfile

import (
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
)

// Service is packets of one protocol to some ports.
type Service struct {
	// Protocol is IANA's number. That of ICMP stands for ICMPv6 over IPv6 too.
	Protocol uint8
	// Ports are destination ports of TCP and UDP; none: every port.
	Ports []ruleset.PortRange
}

var protocolNumbers = map[string]uint8{
	"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "icmp": packet.ProtoICMP, "icmpv6": packet.ProtoICMP, "esp": packet.ProtoESP, "ah": packet.ProtoAH,
}

// Services are the packets of protocols and ports; nil: every packet. Ports without a protocol are those of
// TCP and UDP.
func Services(protocols, ports []Text, port func(string) (uint16, bool)) ([]Service, *yamlfile.Fault) {
	ranges, fault := portRanges(ports, port)
	if fault != nil {
		return nil, fault
	}
	if len(protocols) == 0 && len(ports) > 0 {
		return []Service{{packet.ProtoTCP, ranges}, {packet.ProtoUDP, ranges}}, nil
	}
	var list []Service
	for _, p := range protocols {
		if p.Value == "*" {
			if len(ports) > 0 {
				return nil, p.Errorf("protocol \"*\" with ports: allowed are TCP and UDP, which ports without a protocol mean")
			}
			return nil, nil
		}
		number, known := protocolNumbers[strings.ToLower(p.Value)]
		if !known {
			n, err := strconv.ParseUint(p.Value, 10, 8)
			if err != nil {
				return nil, p.Errorf("protocol %q: allowed are *, TCP, UDP, ICMP, ESP, AH and 0 to 255", ruleset.Clip(p.Value))
			}
			if number = uint8(n); number == packet.ProtoICMPv6 {
				number = packet.ProtoICMP
			}
		}
		if len(ports) > 0 && number != packet.ProtoTCP && number != packet.ProtoUDP {
			return nil, p.Errorf("protocol %s has no ports: allowed with ports are TCP and UDP", packet.ProtocolName(number))
		}
		list = append(list, Service{number, ranges})
	}
	return list, nil
}

func portRanges(ports []Text, port func(string) (uint16, bool)) (ranges []ruleset.PortRange, fault *yamlfile.Fault) {
	for _, p := range ports {
		if n, ok := port(p.Value); ok { // names of services may have hyphens
			ranges = append(ranges, ruleset.PortRange{First: n, Last: n})
			continue
		}
		first, last, _ := strings.Cut(p.Value, "-")
		from, ok := port(first)
		to, ok2 := port(last)
		if !ok || !ok2 || from > to {
			return nil, p.Errorf("ports %q: allowed are 0 to 65535, ranges such as 8000-8010, and names of services such as https", ruleset.Clip(p.Value))
		}
		ranges = append(ranges, ruleset.PortRange{First: from, Last: to})
	}
	return ranges, nil
}
