package conformance

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"go.yaml.in/yaml/v3"
)

// Step is one step of a script. Exactly one of its fields is set.
//
//	PLACE: PACKET => PLACE            a packet and where it comes out
//	PLACE: PACKET => dropped REASON   a packet and why it is dropped
//	wait 4m                           time passes
//	flows 1                           the number of live flows
//	reload: {rules: ...}              the base policy with other changes
//
// A place is a NIC's name, "internet" or "platform". A packet is
//
//	TCP FLAGS SRC > DST | UDP SRC > DST | ICMP TYPE SRC > DST | NUMBER SRC > DST
//
// Three options may follow. id=N is the identifier of the ICMP message, or of the datagram that
// is cut into fragments. fragment=N is part N of a datagram of four parts. "quotes" and a packet
// make an ICMP error that quotes that packet.
type Step struct {
	Text   string
	Packet *Packet
	Wait   time.Duration
	Flows  *int
	Reload *Policy
}

// Packet is sent at one place. It comes out at another, or is dropped for a reason.
type Packet struct {
	From  string
	Bytes []byte
	To    string // empty when it is dropped
	Drop  string
}

// UnmarshalYAML reads a step.
func (s *Step) UnmarshalYAML(node *yaml.Node) (err error) {
	if node.Kind == yaml.MappingNode && len(node.Content) == 2 && node.Content[0].Value == "reload" {
		s.Text, s.Reload = "reload", &Policy{}
		return node.Content[1].Decode(s.Reload)
	}
	if node.Kind == yaml.MappingNode && len(node.Content) == 2 { // "PLACE: PACKET" without quotes
		s.Text = node.Content[0].Value + ": " + node.Content[1].Value
	} else if err := node.Decode(&s.Text); err != nil {
		return err
	}
	verb, rest, _ := strings.Cut(s.Text, " ")
	switch verb {
	case "wait":
		s.Wait, err = time.ParseDuration(rest)
	case "flows":
		s.Flows = new(int)
		*s.Flows, err = strconv.Atoi(rest)
	default:
		s.Packet, err = parsePacket(s.Text)
	}
	if err != nil {
		return fmt.Errorf("line %d: %q: %w", node.Line, s.Text, err)
	}
	return nil
}

func parsePacket(text string) (*Packet, error) {
	from, rest, ok := strings.Cut(text, ": ")
	what, outcome, found := strings.Cut(rest, " => ")
	if !ok || !found {
		return nil, fmt.Errorf("want PLACE: PACKET => OUTCOME")
	}
	p := &Packet{From: from, To: outcome}
	if reason, dropped := strings.CutPrefix(outcome, "dropped "); dropped {
		p.To, p.Drop = "", reason
	}
	var err error
	p.Bytes, err = build(strings.Fields(what))
	return p, err
}

// build makes a packet from its words.
func build(words []string) ([]byte, error) {
	arrow := -1
	for i, w := range words {
		if w == ">" && arrow < 0 {
			arrow = i
		}
	}
	if arrow < 2 || arrow+1 >= len(words) {
		return nil, fmt.Errorf("want PROTOCOL SRC > DST")
	}
	var s packettest.Spec
	protocol, argument := words[0], ""
	if arrow == 3 {
		argument = words[1]
	}
	src, err := parseEnd(words[arrow-1])
	if err != nil {
		return nil, err
	}
	dst, err := parseEnd(words[arrow+1])
	if err != nil {
		return nil, err
	}
	s.Src, s.Dst = src.Address.String(), dst.Address.String()
	s.SrcPort, s.DstPort = portOf(src), portOf(dst)
	o, err := parseOptions(words[arrow+2:])
	if err != nil {
		return nil, err
	}
	s.ICMPID, s.ICMPCode = uint16(o.id), uint8(o.code)
	if o.fragment > 0 {
		s.Payload = 4 * fragmentLen
	}
	b, err := transport(protocol, argument, &s, o.quote)
	if err != nil || o.fragment == 0 {
		return b, err
	}
	parts := packettest.Fragments(b, uint32(o.id), fragmentLen, fragmentLen, fragmentLen)
	if o.fragment > len(parts) {
		return nil, fmt.Errorf("fragment=%d: a datagram has %d parts", o.fragment, len(parts))
	}
	return parts[o.fragment-1], nil
}

// fragmentLen is the length of a datagram's parts.
const fragmentLen = 1024

type packetOptions struct {
	id, code, fragment int
	quote              []byte
}

func parseOptions(words []string) (o packetOptions, err error) {
	for i, w := range words {
		if w == "quotes" {
			o.quote, err = build(words[i+1:])
			return o, err
		}
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			return o, fmt.Errorf("%q: want id=N, code=N, fragment=N or quotes", w)
		}
		switch name {
		case "id":
			o.id = n
		case "code":
			o.code = n
		case "fragment":
			o.fragment = n
		default:
			return o, fmt.Errorf("%q: want id=N, code=N, fragment=N or quotes", w)
		}
	}
	return o, nil
}

func transport(protocol, argument string, s *packettest.Spec, quote []byte) ([]byte, error) {
	switch protocol {
	case "TCP":
		s.Flags = argument
		return packettest.TCP(*s), nil
	case "UDP":
		return packettest.UDP(*s), nil
	case "ICMP":
		n, err := strconv.ParseUint(argument, 10, 8)
		if err != nil {
			return nil, fmt.Errorf("ICMP type %q: %w", argument, err)
		}
		s.ICMPType = uint8(n)
		if quote != nil {
			return packettest.ICMPError(*s, quote), nil
		}
		return packettest.ICMP(*s), nil
	}
	n, err := strconv.ParseUint(protocol, 10, 8)
	if err != nil {
		return nil, fmt.Errorf("protocol %q: want TCP, UDP, ICMP or a number", protocol)
	}
	s.Payload = max(s.Payload, 32)
	return packettest.Raw(*s, uint8(n)), nil
}

func portOf(e End) uint16 {
	n, _ := strconv.ParseUint(e.Port, 10, 16) // 0 for protocols without
	return uint16(n)
}

// Steps are the packets that a case sends on the wire: its script, or the first packet of each
// verdict's flow. at names the place of an address.
func (c *Case) Steps(at func(netip.Addr) string) []Step {
	if len(c.Script) > 0 {
		return c.Script
	}
	var steps []Step
	for i := range c.Verdicts {
		steps = append(steps, c.Verdicts[i].step(at))
	}
	return steps
}

func (v *Verdict) step(at func(netip.Addr) string) Step {
	src, dst, from, to := v.Local, v.Remote, v.NIC, at(v.Remote.Address)
	if v.Direction == "Inbound" {
		src, dst, from, to = dst, src, to, from
	}
	what := map[string]string{"TCP": "TCP S", "UDP": "UDP", "ICMP": "ICMP 8", "ESP": "50", "AH": "51"}[strings.ToUpper(v.Protocol)]
	if what == "ICMP 8" && src.Address.Is6() {
		what = "ICMP 128"
	}
	b, err := build(append(strings.Fields(what), src.String(), ">", dst.String()))
	if err != nil {
		panic(v.Text + ": " + err.Error()) // a verdict of the wire is one of a packet
	}
	p := &Packet{From: from, Bytes: b, To: to}
	if v.Access == "Deny" {
		p.To, p.Drop = "", "rule_deny"
	}
	return Step{Text: v.Text, Packet: p}
}

// String is the end in the notation of verdicts.
func (e End) String() string {
	if e.Port == "" {
		return e.Address.String()
	}
	if e.Address.Is6() {
		return "[" + e.Address.String() + "]:" + e.Port
	}
	return e.Address.String() + ":" + e.Port
}
