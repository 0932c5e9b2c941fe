package worlds

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// world is a policy as its user would write it, and what stands around it. It is printed as JSON
// when opinions about one of its packets differ.
type world struct {
	Resources   []any        `json:"resources"` // ARM
	Attachments []attachment `json:"attachments"`
	// BlockSMTP: the subscription lets no TCP port 25 out.
	BlockSMTP       bool   `json:"blockSMTP,omitempty"`
	DefaultOutbound string `json:"defaultOutbound,omitempty"`
	// Outside and ReachPrivate are prefixes and reachPrivate of the internet's attachment.
	Outside      []string `json:"outside,omitempty"`
	ReachPrivate bool     `json:"reachPrivate,omitempty"`
	Seed         uint64   `json:"seed"` // of load balancers
}

// attachment is one of nsgd.yaml: what exactly one of its fields names.
type attachment struct {
	NetworkInterface string   `json:"networkInterface,omitempty"`
	Subnet           string   `json:"subnet,omitempty"`
	Gateway          string   `json:"gateway,omitempty"`
	Prefixes         []string `json:"prefixes,omitempty"` // of a gateway
	Internet         bool     `json:"internet,omitempty"`
	Platform         bool     `json:"platform,omitempty"`
}

func (a *attachment) spec() topology.Spec {
	switch {
	case a.NetworkInterface != "":
		return topology.Spec{Kind: topology.NetworkInterface, Reference: a.NetworkInterface}
	case a.Subnet != "":
		return topology.Spec{Kind: topology.Subnet, Reference: a.Subnet}
	case a.Internet:
		return topology.Spec{Kind: topology.Internet}
	case a.Platform:
		return topology.Spec{Kind: topology.Platform}
	}
	spec := topology.Spec{Kind: topology.Gateway, Reference: a.Gateway}
	for _, p := range a.Prefixes {
		spec.Prefixes = append(spec.Prefixes, netip.MustParsePrefix(p))
	}
	return spec
}

func (w *world) String() string {
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // maps, lists, texts and numbers
	}
	return string(text)
}

// built is a world that an engine carries packets in.
type built struct {
	*world
	policy   *policy.Set
	specs    []topology.Spec
	snapshot *topology.Snapshot
	carrier  *dataplane.Carrier
	keys     []topology.RuleKey
	now      time.Time     // of the last packet
	sets     *ask.PathSets // from everybody to everybody, once they are asked for
}

// build reads the world's documents as a user's. The error is of a world that nobody may have.
func (w *world) build() (*built, error) {
	text, err := json.Marshal(w.Resources)
	if err != nil {
		return nil, err
	}
	documents := arm.Parse("world.json", text)
	if len(documents.Faults)+len(documents.Unresolved) > 0 {
		return nil, fmt.Errorf("%v%v", documents.Faults, documents.Unresolved)
	}
	b := &built{world: w, policy: documents.Set, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for i := range w.Attachments {
		b.specs = append(b.specs, w.Attachments[i].spec())
	}
	o := dataplane.Options{Attachments: b.specs, Topology: w.topology(), Subscription: w.subscription(), Flows: w.flows()}
	if b.carrier, err = dataplane.NewCarrier(b.policy, o); err != nil {
		return nil, err
	}
	b.snapshot, b.keys = b.carrier.Engine().Snapshot(), b.carrier.Engine().Registry().Keys()
	return b, nil
}

func (w *world) topology() topology.Options {
	o := topology.Options{Seed: w.Seed, ReachPrivate: w.ReachPrivate}
	for _, p := range w.Outside {
		o.Outside = append(o.Outside, netip.MustParsePrefix(p))
	}
	if w.DefaultOutbound != "" {
		o.DefaultOutbound = netip.MustParseAddr(w.DefaultOutbound)
	}
	return o
}

func (w *world) subscription() topology.Subscription {
	if w.BlockSMTP {
		return topology.Subscription{Type: "msdn"}
	}
	return topology.Subscription{}
}

// flows are the same for the engine and for a replay. The table is small: each tuple finds it empty.
func (w *world) flows() conntrack.Options {
	return conntrack.Options{Max: 1000, Seed: [2]uint64{w.Seed, 1}}
}

// networksWith are the virtual networks whose address space has an address.
func (b *built) networksWith(a netip.Addr) (list []*policy.VirtualNetwork) {
	for _, v := range b.policy.VirtualNetworks {
		for _, p := range v.AddressSpace {
			if p.Contains(a) {
				list = append(list, v)
				break
			}
		}
	}
	return list
}

// interfaceWith is the NIC of a virtual network that has an address; nil when none has.
func (b *built) interfaceWith(v *policy.VirtualNetwork, a netip.Addr) *policy.NetworkInterface {
	for _, nic := range b.policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			if c := &nic.IPConfigurations[i]; c.Address == a && (v == nil || c.Subnet.VirtualNetwork == v) {
				return nic
			}
		}
	}
	return nil
}

// stands reports an address that stands for others: a public one of the policy, or a frontend.
func (b *built) stands(a netip.Addr) bool {
	for _, p := range b.policy.PublicIPAddresses {
		if p.Address == a {
			return true
		}
	}
	for _, p := range b.policy.PublicIPPrefixes {
		if p.Prefix.Contains(a) {
			return true
		}
	}
	for _, lb := range b.policy.LoadBalancers {
		for _, f := range lb.Frontends {
			if f.Address == a {
				return true
			}
		}
	}
	return a.IsValid() && a.String() == b.DefaultOutbound
}

// ruleName is a rule's name without what says whose it is.
func ruleName(qualified string) string { return qualified[strings.LastIndexAny(qualified, "/")+1:] }
