package ask

import (
	"context"
	"fmt"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

// ReachParameters ask who can reach what.
type ReachParameters struct {
	// From is an end, see EndForms, and To a target, see TargetForm. Empty is everybody.
	From string `json:"from"`
	To   string `json:"to"`
	// MaxStates bounds the work; 0: the default. See analysis.Options.
	MaxStates int `json:"maxStates,omitempty"`
	// MaxPairs bounds the pairs of places; 0: DefaultMaxPairs. Others are listed as undecided.
	MaxPairs int `json:"-"`
}

// ReachResult is all packets that pass.
type ReachResult struct {
	Allowed []Reached `json:"allowed"`
	// Undecided are packets about which nothing is known.
	Undecided []ReachUndecided `json:"undecided"`
	// Forwarders are network interfaces with enableIPForwarding: what they forward for others is not among Allowed.
	Forwarders []string `json:"forwarders,omitempty"`
}

// Reached is packets that pass: from every sender to every receiver by each of the ports.
type Reached struct {
	// From and To are ends by name, addresses, prefixes, and ranges: first-last.
	From []string `json:"from"`
	To   []string `json:"to"`
	// At are the addresses that are asked where these only stand for the receivers.
	At []string `json:"at,omitempty"`
	// Protocol is TCP, UDP, ICMP, ICMPv6, ESP, AH, other (all that rules cannot name), or * for all of them.
	Protocol string `json:"protocol"`
	// Ports are destination ports, of ICMP the types. Protocols without have none.
	Ports       []string `json:"ports"`
	SourcePorts []string `json:"sourcePorts,omitempty"` // absent for all
	// Via are the appliances on the way.
	Via []string `json:"via,omitempty"`
	// Rules are those that let the packets pass, of senders and of receivers.
	Rules []ReachRule `json:"rules"`
	// Reason is rule, platform or noNetworkSecurityGroup, as in verify.
	Reason string `json:"reason"`
	// Chosen means that a load balancer leads some of the packets to others.
	Chosen bool `json:"chosen,omitempty"`
	// IPVersion is IPv4 or IPv6 where the other version has other answers; else absent.
	IPVersion string      `json:"ipVersion,omitempty"`
	Witness   DiffWitness `json:"witness"`
}

// ReachRule is a rule that lets packets pass.
type ReachRule struct {
	Direction            string `json:"direction"`
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	RuleName             string `json:"ruleName"`
}

// ReachUndecided is packets about which nothing is known.
type ReachUndecided struct {
	From  []string  `json:"from"`
	To    []string  `json:"to"`
	Why   string    `json:"why"`
	Boxes []DiffBox `json:"boxes"`
}

// Reach finds all packets that begin a flow from one end to another and pass: by routes, translation, the rules
// of both ends and of appliances between them. It ends with the context's error when the context does.
func Reach(ctx context.Context, s *topology.Snapshot, q *ReachParameters) (*ReachResult, error) {
	query, sets, open, err := between(ctx, s, q)
	if err != nil {
		return nil, err
	}
	r := &ReachResult{Allowed: query.allowed(sets), Undecided: open, Forwarders: Forwarders(s)}
	for i := range sets.Sets {
		if set := &sets.Sets[i]; set.More && set.Access == ruleset.Allow.String() {
			r.Undecided = append(r.Undecided, ReachUndecided{From: set.From, To: set.To, Why: "there are more boxes than are listed", Boxes: []DiffBox{}})
		}
	}
	return r, nil
}

// MaxStatesLimit is the largest bound on the work that a question may ask for.
const MaxStatesLimit = 4 * analysis.DefaultMaxStates

// CheckMaxStates refuses a bound on the work that no question may ask for; 0 is the default.
func CheckMaxStates(n int) error {
	if n < 0 || n > MaxStatesLimit {
		return fmt.Errorf("maxStates: %d: allowed are 1 to %d", n, MaxStatesLimit)
	}
	return nil
}

// between asks what one end may send to another, and lists what is not decided. The error begins with the field that is wrong.
func between(ctx context.Context, s *topology.Snapshot, q *ReachParameters) (*betweenQuery, *PathSets, []ReachUndecided, error) {
	if err := CheckMaxStates(q.MaxStates); err != nil {
		return nil, nil, nil, err
	}
	b := NewBetween(s, q.MaxStates)
	b.context = ctx
	if q.MaxPairs > 0 {
		b.maxPairs = q.MaxPairs
	}
	from, to, services, err := b.ends(q.From, q.To)
	if err != nil {
		return nil, nil, nil, err
	}
	query, err := b.query(from, to)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("from: %w", err)
	}
	query.arriving, query.sentToo = to.means != nil && services != nil, true
	sets := query.ask(services)
	return query, sets, append(undecided(sets), query.unassigned(services)...), ctx.Err()
}

// ends finds both ends of a question.
func (b *Between) ends(from, to string) (src, dst *End, services []analysis.Service, err error) {
	src, dst = Everybody(), Everybody()
	if from != "" {
		if src, err = b.End(from); err != nil {
			return nil, nil, nil, fmt.Errorf("from: %w", err)
		}
	}
	if to != "" {
		target, err := ParseTarget(to)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("to: %w", err)
		}
		services = target.Services
		if dst, err = b.End(target.End); err != nil {
			return nil, nil, nil, fmt.Errorf("to: %w", err)
		}
	}
	return src, dst, services, nil
}
