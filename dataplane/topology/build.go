package topology

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Spec asks for one attachment.
type Spec struct {
	Kind Kind
	// Reference is the ARM name or id of the NIC, the subnet, or the gateway's virtual
	// network. It is empty for the other kinds.
	Reference string
	// Prefixes are the on-premises networks behind a gateway. Other kinds ignore them.
	Prefixes []netip.Prefix
	// Place is where a list that somebody wrote has the attachment, from 1 on, for messages; 0: at its index.
	Place int
	// Sort and Host are of the kind Fabric. Reference is then a virtual network, or the NIC of a FabricInterface.
	// Host is the host with the internet of a FabricInternet. Prefixes are those of a FabricGateway.
	Sort FabricSort
	Host string
}

// number is how messages number the spec at an index.
func (s *Spec) number(index int) int {
	if s.Place > 0 {
		return s.Place - 1
	}
	return index
}

// Identity identifies what the attachment stands for, by whatever name it is referred to. It is empty when the
// policy lacks that.
func (s *Spec) Identity(set *policy.Set) string {
	id := ""
	switch s.Kind {
	case NetworkInterface:
		if nic, err := set.NetworkInterface(s.Reference); err == nil {
			id = nic.ID
		}
	case Subnet:
		if sub, err := set.Subnet(s.Reference); err == nil {
			id = sub.ID
		}
	case Gateway:
		if v, err := set.VirtualNetwork(s.Reference); err == nil {
			id = v.ID
		}
	case Fabric:
		id = s.fabricID(set)
	}
	return identity(s.Kind, id)
}

func identity(kind Kind, id string) string {
	switch {
	case kind == Internet || kind == Platform:
		return kind.String()
	case id == "":
		return ""
	}
	return kind.String() + " " + strings.ToLower(id)
}

// Options choose how a policy is understood. The zero value is the ordinary way.
type Options struct {
	// AzureQuirks lets a rule match nothing when it lists several application security
	// groups on a side and one of them has no members. Azure has been seen to do so
	// (azure-docs issue 77328). Otherwise an empty group adds nothing.
	AzureQuirks bool
	// Isolated asks only the rules of attached NICs, and no routes. All other addresses
	// are treated as internet hosts without NSGs, see isolated.go. The attachments are
	// NICs, the internet and the platform.
	Isolated bool
	// DefaultOutbound is the address of default outbound access. If it is not valid,
	// packets without another way out leave untranslated.
	DefaultOutbound netip.Addr
	// Outside are networks that the internet sends from besides its public addresses, and that
	// system routes lead to. One within what the policy has is a fault.
	Outside []netip.Prefix
	// ReachPrivate lets the internet reach private addresses though the policy has public ones.
	ReachPrivate bool
	// Seed is the seed of the hash by which load balancers distribute flows. With the
	// same seed a client finds the same backend after a reload.
	Seed uint64
	// Host is this host's name among those that share the policy, see Fabric; empty: there are no others.
	Host string
	// InternetShare is this host's share of the ports of public addresses that flows share.
	InternetShare Share
}

// Build makes a snapshot of a policy with the attachments in the order of specs. With no
// specs the snapshot answers questions about the policy alone. The error joins all faults.
// The registry changes only when Build succeeds.
func Build(set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return Options{}.Rebuild(nil, set, specs, registry)
}

// Rebuild is Options.Rebuild with the zero value.
func Rebuild(earlier *Snapshot, set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return Options{}.Rebuild(earlier, set, specs, registry)
}

// Build is the function Build with options.
func (o Options) Build(set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	return o.Rebuild(nil, set, specs, registry)
}

// Rebuild is Build, but takes compiled tables from an earlier snapshot where compiling again
// would give the same: the rules are equal, and so are the prefixes of their tags and
// application security groups. earlier may be nil.
//
// Each step takes what the steps before it give, so the compiler holds their order.
func (o Options) Rebuild(earlier *Snapshot, set *policy.Set, specs []Spec, registry *Registry) (*Snapshot, error) {
	var f faults
	networks := newNetworks(set, specs)
	networks.besides = o.Outside
	groupNetworks(networks, specs, &f)
	groups := newGroupSet(set)
	endpoints := newEndpoints(set, networks, groups)
	all := groups.complete()
	pending := resolveRules(set, o.AzureQuirks, all, earlier, registry, &f)
	attached := attach(set, specs, endpoints, &f)
	attached.placeFabrics(set, specs, o.Host, &f)
	routed := fillRoutes(set, attached)
	translation, boundary := &translation{}, &boundary{}
	if o.Isolated {
		isolate(routed, &f)
		attached.refuseFabrics(&f)
	} else {
		translation = newTranslation(set, o.DefaultOutbound, o.InternetShare, routed)
		attached.addProbeSource(translation.probes)
		boundary = newBoundary(set, routed, translation.public, &f)
		routed.hidePrivate(translation, o.ReachPrivate)
		routed.fillFabrics()
	}
	o.InternetShare.check(&f)
	if len(f) > 0 {
		return nil, errors.Join(f...)
	}
	reclaimed := registry.reclaims()
	if err := assignSlots(all, registry); err != nil {
		return nil, err
	}
	compile(pending)
	return &Snapshot{
		Policy: set, Groups: all, Attachments: attached.attachments, specs: specs, networks: networks, endpoints: endpoints,
		outside: endpoints.outside, platform: endpoints.platform, byAddress: routed.byAddress,
		public: translation.public, boundary: boundary, translates: translation.translates, probes: translation.probes, shared: translation.shared,
		services: endpoints.services, options: o, registry: registry, reclaimed: reclaimed,
		userRoutes: !o.Isolated && (networks.defaultLearned || endpoints.routeTables),
	}, nil
}

// Identity is Spec.Identity of what the attachment was made for.
func (a *Attachment) Identity() string { return a.identity }

// Identities are those of the attachments, by slot; empty: vacant.
func (s *Snapshot) Identities() []string {
	identities := make([]string, len(s.Attachments))
	for slot, a := range s.Attachments {
		if a.Kind != Vacant {
			identities[slot] = a.identity
		}
	}
	return identities
}

// BuiltFor reports that the snapshot was built for this very list of specs.
func (s *Snapshot) BuiltFor(specs []Spec) bool {
	return len(s.specs) == len(specs) && (len(specs) == 0 || &s.specs[0] == &specs[0])
}

// faults collects what is wrong with a policy and its attachments.
type faults []error

func (f *faults) add(format string, args ...any) {
	*f = append(*f, fmt.Errorf("topology: "+format, args...))
}
