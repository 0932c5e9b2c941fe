package ask

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// Target is a destination as a person writes it: END[:PORT][/PROTOCOL].
type Target struct {
	// End is the destination, see EndForms.
	End string
	// Services are the protocols and ports; nil: all.
	Services []analysis.Service
}

// TargetForm says how a target is written, for messages.
const TargetForm = "END[:PORT][/PROTOCOL], where PORT is a port, a range such as 8000-8080, a list of these, or a service such as https, and PROTOCOL is tcp, udp, icmp, esp or ah"

// ParseTarget reads a target. An end of several colons is one without a port, unless the last part can be
// one: [2001:db8::1]:443, nic:web:443.
func ParseTarget(text string) (t Target, err error) {
	rest, protocol := text, ""
	if i := strings.LastIndexByte(text, '/'); i >= 0 && protocols[strings.ToLower(text[i+1:])] != nil {
		rest, protocol = text[:i], strings.ToLower(text[i+1:])
	}
	t.End = rest
	var ports []ruleset.PortRange
	var usual []uint8
	if end, port, cut := splitPort(rest); cut {
		if ports, usual, err = parsePorts(port); err != nil {
			return t, fmt.Errorf("%q: %w", text, err)
		}
		t.End = end
	}
	t.End = strings.TrimSuffix(strings.TrimPrefix(t.End, "["), "]")
	if t.End == "" {
		return t, fmt.Errorf("%q: the end is missing: allowed is %s", text, TargetForm)
	}
	numbers := usual
	if protocol != "" {
		numbers = protocols[protocol]
	}
	for _, n := range numbers {
		if ports != nil && n != packet.ProtoTCP && n != packet.ProtoUDP {
			return t, fmt.Errorf("%q: %s has no ports", text, protocol)
		}
		t.Services = append(t.Services, analysis.Service{Protocol: n, Ports: ports})
	}
	return t, nil
}

// protocols are those that a target names.
var protocols = map[string][]uint8{"tcp": {packet.ProtoTCP}, "udp": {packet.ProtoUDP}, "icmp": {packet.ProtoICMP, packet.ProtoICMPv6},
	"esp": {packet.ProtoESP}, "ah": {packet.ProtoAH}}

// splitPort cuts the port off an end. A kind of end is no end, and an IPv6 address has no port without
// brackets.
func splitPort(text string) (end, port string, cut bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return text, "", false
	}
	before := text[:i]
	kind := slices.ContainsFunc(endKinds, func(k endKind) bool { return strings.EqualFold(k.name, before) })
	inner, bracketed := strings.CutPrefix(before, "[")
	if bracketed && strings.HasSuffix(inner, "]") {
		return before, text[i+1:], true
	}
	first, _, _ := strings.Cut(before, ":")
	named := slices.ContainsFunc(endKinds, func(k endKind) bool { return strings.EqualFold(k.name, first) })
	if kind || strings.Contains(before, ":") && !named {
		return text, "", false
	}
	return before, text[i+1:], true
}

// serviceNames are services that people ask about and that not every machine's list has, or that are not
// TCP's alone.
var serviceNames = map[string]struct {
	port      uint16
	protocols []uint8
}{
	"ftp": {21, tcpOnly}, "ssh": {22, tcpOnly}, "telnet": {23, tcpOnly}, "smtp": {25, tcpOnly}, "dns": {53, tcpAndUDP}, "domain": {53, tcpAndUDP},
	"http": {80, tcpOnly}, "kerberos": {88, tcpAndUDP}, "ntp": {123, udpOnly}, "imap": {143, tcpOnly}, "snmp": {161, udpOnly}, "ldap": {389, tcpAndUDP},
	"https": {443, tcpOnly}, "smb": {445, tcpOnly}, "syslog": {514, udpOnly}, "ldaps": {636, tcpOnly}, "mssql": {1433, tcpOnly}, "nfs": {2049, tcpAndUDP},
	"mysql": {3306, tcpOnly}, "rdp": {3389, tcpAndUDP}, "postgresql": {5432, tcpOnly}, "postgres": {5432, tcpOnly}, "winrm": {5985, tcpOnly},
	"winrms": {5986, tcpOnly}, "redis": {6379, tcpOnly}, "mongodb": {27017, tcpOnly},
}

var (
	tcpOnly   = []uint8{packet.ProtoTCP}
	udpOnly   = []uint8{packet.ProtoUDP}
	tcpAndUDP = []uint8{packet.ProtoTCP, packet.ProtoUDP}
)

// parsePorts reads a list of ports, ranges and services. usual are the protocols that are meant where none is
// named: a service's own, and both for numbers.
func parsePorts(text string) (ports []ruleset.PortRange, usual []uint8, err error) {
	for _, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		if s, ok := serviceNames[strings.ToLower(part)]; ok {
			ports, usual = append(ports, ruleset.PortRange{First: s.port, Last: s.port}), append(usual, s.protocols...)
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil && low <= high {
			ports, usual = append(ports, ruleset.PortRange{First: uint16(low), Last: uint16(high)}), append(usual, tcpAndUDP...)
			continue
		}
		port, err := net.LookupPort("tcp", part)
		if err != nil || port == 0 || strings.Trim(part, "0123456789") == "" {
			return nil, nil, fmt.Errorf("port %q: allowed are 0 to 65535, FIRST-LAST and the name of a service such as https", part)
		}
		ports, usual = append(ports, ruleset.PortRange{First: uint16(port), Last: uint16(port)}), append(usual, packet.ProtoTCP)
	}
	slices.Sort(usual)
	return ports, slices.Compact(usual), nil
}
