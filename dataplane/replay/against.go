package replay

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

const (
	// maxChanged bounds the flows that are told apart; see Against.Truncated.
	maxChanged = 1 << 16
	// maxByRule bounds the sums by rule: a flow log may name any number of rules.
	maxByRule = 1 << 12
)

// Against is what another policy would have done otherwise.
type Against struct {
	// Recorded says that what a flow log has recorded is compared with the policy, because there is no other one.
	Recorded bool `json:"recorded,omitempty"`
	// Flows, Packets and Bytes are those that one allows and the other does not.
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Allowed and Denied are the flows by what they newly are.
	Allowed uint64 `json:"allowed"`
	Denied  uint64 `json:"denied"`
	// ByRule are the same by the rules that decided, those with most flows first.
	ByRule []RuleChange `json:"byRule"`
	// List are the largest flows.
	List []FlowChange `json:"list"`
	// Truncated is set when there are more flows than listed, or more than 4,096 sums by rule. Behind the first 65,536
	// flows, which are told apart for certain, a flow is what a log's row or a packet begins.
	Truncated bool `json:"truncated,omitempty"`
}

// Opinion is what a policy, or a record, says of a flow, and the rule that decided.
type Opinion struct {
	Access string `json:"access"` // Allow, Deny (by a rule) or Drop
	Reason string `json:"reason"`
	// NetworkSecurityGroup and Rule are empty where no rule decided.
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	Rule                 string `json:"rule,omitempty"`
}

// Kinds of changes: what the flow is under the other policy.
const (
	NewlyAllowed = "allowed"
	NewlyDenied  = "denied"
)

// RuleChange sums up the flows that the same rules decide.
type RuleChange struct {
	Kind      string  `json:"kind"`
	Direction string  `json:"direction,omitempty"`
	Old       Opinion `json:"old"`
	New       Opinion `json:"new"`
	Flows     uint64  `json:"flows"`
	Packets   uint64  `json:"packets"`
	Bytes     uint64  `json:"bytes"`
}

// FlowChange is one flow that one policy allows and the other does not.
type FlowChange struct {
	Kind string `json:"kind"`
	// NetworkInterface is the end that a flow log's row is about; absent for captures. Direction is how that end sees it.
	NetworkInterface string    `json:"networkInterface,omitempty"`
	Direction        string    `json:"direction,omitempty"`
	Protocol         string    `json:"protocol"`
	Source           string    `json:"source"`
	SourcePort       uint16    `json:"sourcePort"`
	Destination      string    `json:"destination"`
	DestinationPort  uint16    `json:"destinationPort"`
	Old              Opinion   `json:"old"`
	New              Opinion   `json:"new"`
	Packets          uint64    `json:"packets"`
	Bytes            uint64    `json:"bytes"`
	First            time.Time `json:"first"`
	Last             time.Time `json:"last"`
}

// flowKey identifies a flow, in a log together with its end.
type flowKey struct {
	packet.Tuple
	end, direction string
}

// ruleKey identifies a RuleChange.
type ruleKey struct {
	direction string
	old, new  Opinion
}

// changes collects flows that change.
type changes struct {
	most   int // that are listed
	flows  map[flowKey]*FlowChange
	order  []*FlowChange
	byRule map[ruleKey]*RuleChange
	beyond RuleChange // of the rules beyond maxByRule
	sums   Against
}

func newChanges(most int) *changes {
	return &changes{most: most, flows: map[flowKey]*FlowChange{}, byRule: map[ruleKey]*RuleChange{}}
}

// of finds a flow that has changed, in either direction of its packets.
func (c *changes) of(t *packet.Tuple) *FlowChange {
	if f := c.flows[flowKey{Tuple: *t}]; f != nil {
		return f
	}
	return c.flows[flowKey{Tuple: t.Reverse()}]
}

// begin notes a flow, unless it is known or there are too many. begins says that it counts as one if it is not told
// apart.
func (c *changes) begin(k flowKey, old, new Opinion, at time.Time, begins bool) *FlowChange {
	if f := c.flows[k]; f != nil {
		return f
	}
	f := &FlowChange{Kind: NewlyDenied, NetworkInterface: k.end, Direction: k.direction, Protocol: packet.ProtocolName(k.Proto),
		Source: k.Src.String(), SourcePort: k.SrcPort, Destination: k.Dst.String(), DestinationPort: k.DstPort, Old: old, New: new, First: at, Last: at}
	if new.Access == Allow {
		f.Kind = NewlyAllowed
	}
	known := len(c.order) < maxChanged
	if known {
		c.flows[k] = f
		c.order = append(c.order, f)
	}
	c.sums.Truncated = c.sums.Truncated || !known
	if known || begins {
		c.sums.Flows++
		*map[string]*uint64{NewlyAllowed: &c.sums.Allowed, NewlyDenied: &c.sums.Denied}[f.Kind]++
		c.rule(f).Flows++
	}
	return f
}

// rule is the sum that a flow belongs to.
func (c *changes) rule(f *FlowChange) *RuleChange {
	k := ruleKey{f.Direction, f.Old, f.New}
	r := c.byRule[k]
	switch {
	case r != nil:
	case len(c.byRule) == maxByRule:
		c.sums.Truncated = true
		return &c.beyond
	default:
		r = &RuleChange{Kind: f.Kind, Direction: f.Direction, Old: f.Old, New: f.New}
		c.byRule[k] = r
	}
	return r
}

// sum stops at the largest number: a flow log's row may hold any.
func sum(numbers ...uint64) (total uint64) {
	for _, n := range numbers {
		next, carry := bits.Add64(total, n, 0)
		if total = next; carry > 0 {
			return math.MaxUint64
		}
	}
	return total
}

// count counts packets of a flow.
func (c *changes) count(f *FlowChange, packets, bytes uint64, at time.Time) {
	r := c.rule(f)
	for _, n := range []*uint64{&f.Packets, &r.Packets, &c.sums.Packets} {
		*n = sum(*n, packets)
	}
	for _, n := range []*uint64{&f.Bytes, &r.Bytes, &c.sums.Bytes} {
		*n = sum(*n, bytes)
	}
	if at.After(f.Last) {
		f.Last = at
	}
}

// result sums up.
func (c *changes) result() *Against {
	a := c.sums
	a.ByRule, a.List = []RuleChange{}, []FlowChange{}
	for _, r := range c.byRule {
		a.ByRule = append(a.ByRule, *r)
	}
	text := func(o *Opinion) string { return o.Access + o.Reason + o.NetworkSecurityGroup + "/" + o.Rule }
	slices.SortFunc(a.ByRule, func(x, y RuleChange) int {
		return cmp.Or(cmp.Compare(y.Flows, x.Flows), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Direction, y.Direction),
			cmp.Compare(text(&x.Old), text(&y.Old)), cmp.Compare(text(&x.New), text(&y.New)))
	})
	order := slices.Clone(c.order)
	slices.SortStableFunc(order, func(x, y *FlowChange) int { return cmp.Compare(y.Bytes, x.Bytes) })
	for _, f := range order[:min(len(order), c.most)] {
		a.List = append(a.List, *f)
	}
	a.Truncated = a.Truncated || len(order) > c.most
	return &a
}
