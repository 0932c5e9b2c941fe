package watch

import (
	"fmt"
	"net/netip"
	"strings"
)

// Filter is a parsed expression in the manner of libpcap. A nil Filter takes every packet. It
// never changes.
//
//	expression  primitive, not expression, expression and expression, expression or expression, ( expression )
//	primitive   [protocol] [side] kind value
//	protocol    ip, ip6, tcp, udp, icmp, icmp6, esp, ah, gre; one stands for itself, too
//	side        src, dst, src or dst, src and dst; none: src or dst
//	kind        host ADDRESS, net PREFIX, port PORT, portrange FIRST-LAST, proto PROTOCOL,
//	            nic NAME or attachment NAME (where the packet comes from or goes to),
//	            nsg NAME, rule NAME (that was asked, or that had allowed the flow),
//	            verdict allow or deny (carried or dropped), reason NAME (why it was dropped),
//	            flow new, live, related or none
//
// not binds before and, and before or; !, && and || are the same. An address or a prefix needs
// no kind. After and, or and not, a value alone has the words before the last value: port 80 or 443.
// Names are compared without case, and may be quoted. A translated packet is matched by
// what was sent and by what arrives.
type Filter struct {
	text string
	root *node // nil: every packet
}

// String is the expression as it was given.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.text
}

// takesAll reports a filter that takes every packet.
func (f *Filter) takesAll() bool { return f == nil || f.root == nil }

type operator uint8

const (
	opTest operator = iota
	opNot           // of left
	opAnd
	opOr
)

type node struct {
	op          operator
	left, right *node
	test        test // of opTest
}

type kind uint8

const (
	kindFamily kind = iota // first is 4 or 6
	kindProto              // first
	kindHost               // prefix, as of net
	kindNet
	kindPort // first to last
	kindPortRange
	kindAttachment // name
	kindNSG        // name
	kindRule       // name
	kindVerdict    // first: 1 is deny
	kindReason     // first
	kindFlow       // first
)

var kindNames = map[string]kind{
	"proto": kindProto, "host": kindHost, "net": kindNet, "port": kindPort, "portrange": kindPortRange,
	"nic": kindAttachment, "attachment": kindAttachment, "nsg": kindNSG, "rule": kindRule,
	"verdict": kindVerdict, "reason": kindReason, "flow": kindFlow,
}

// sided reports whether a side may come before the kind.
func (k kind) sided() bool {
	switch k {
	case kindHost, kindNet, kindPort, kindPortRange, kindAttachment:
		return true
	}
	return false
}

type side uint8

const (
	either side = iota
	source
	destination
	both
)

// test is one primitive.
type test struct {
	kind        kind
	side        side
	first, last uint16
	icmp        bool // of kindProto: either family's
	prefix      netip.Prefix
	name        string
	column      int // of name
}

// Error says what is wrong with an expression.
type Error struct {
	// Column is the fault's place, in bytes from 1.
	Column int
	// Message says what is there and what is allowed.
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("filter: column %d: %s", e.Column, e.Message) }

func errorAt(column int, format string, values ...any) *Error {
	return &Error{column, fmt.Sprintf(format, values...)}
}

// Names are the names of a policy, which filters look up.
type Names struct {
	// Attachments by index; empty: none is there.
	Attachments []string
	// Rules by slot.
	Rules []RuleName
}

// RuleName is a rule in counters: the NSG's name, or its id when there are several of that name.
type RuleName struct{ NetworkSecurityGroup, Rule string }

// matches are the numbers of the attachments or rules that have the test's name.
func (n *Names) matches(t *test) []uint32 {
	var list []uint32
	if t.kind == kindAttachment {
		for i, name := range n.Attachments {
			if sameName(name, t.name) {
				list = append(list, uint32(i))
			}
		}
		return list
	}
	for slot := range n.Rules {
		r := &n.Rules[slot]
		if t.kind == kindNSG && sameName(r.NetworkSecurityGroup, t.name) || t.kind == kindRule && sameRule(r.Rule, t.name) {
			list = append(list, uint32(slot))
		}
	}
	return list
}

// sameName compares a name with the one in a filter. An id is also known by its last part.
func sameName(name, asked string) bool {
	return strings.EqualFold(name, asked) || strings.HasPrefix(name, "/") && strings.EqualFold(name[strings.LastIndexByte(name, '/')+1:], asked)
}

// sameRule takes a rule's name with and without the prefix that verify shows.
func sameRule(name, asked string) bool {
	for _, prefix := range []string{"securityRules/", "defaultSecurityRules/", "securityAdminRules/"} {
		name = strings.TrimPrefix(name, prefix)
		if len(asked) > len(prefix) && strings.EqualFold(asked[:len(prefix)], prefix) {
			asked = asked[len(prefix):]
		}
	}
	return strings.EqualFold(name, asked)
}

// maxListed bounds the names that an error lists.
const maxListed = 12

// unknown is the error for a name that nothing in the policy has.
func (n *Names) unknown(t *test) *Error {
	var all []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	word := "nsg"
	switch t.kind {
	case kindAttachment:
		word = "nic"
		for _, name := range n.Attachments {
			if name != "" { // vacant
				add(name)
			}
		}
	default:
		for _, r := range n.Rules {
			if t.kind == kindNSG {
				add(r.NetworkSecurityGroup)
			} else {
				add(r.Rule)
			}
		}
	}
	if t.kind == kindRule {
		word = "rule"
	}
	if len(all) == 0 {
		return errorAt(t.column, "%s %q: there is none in this policy", word, t.name)
	}
	list := strings.Join(all[:min(len(all), maxListed)], ", ")
	if more := len(all) - maxListed; more > 0 {
		list = fmt.Sprintf("%s and %d more", list, more)
	}
	return errorAt(t.column, "%s %q: there is none of that name: allowed are %s", word, t.name, list)
}
