package control

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// The kinds of tags.
const (
	ServiceTagKind = "serviceTag" // of the service tag file
	BuiltInKind    = "builtIn"    // in no file
)

// TagSummary is one tag.
type TagSummary struct {
	Name          string `json:"name"`
	Kind          string `json:"kind"`
	ChangeNumber  string `json:"changeNumber,omitempty"`
	Region        string `json:"region,omitempty"`
	SystemService string `json:"systemService,omitempty"`
	// NetworkFeatures says where Azure takes the tag; those of the tag without its region
	// when it has none itself.
	NetworkFeatures []string `json:"networkFeatures,omitempty"`
	// IPv4 and IPv6 count the prefixes; a built-in tag has none in a list, where no subnet is asked about.
	IPv4 int `json:"ipv4"`
	IPv6 int `json:"ipv6"`
	// Rules counts the policy's rules that name the tag, the default ones of each NSG included.
	Rules int `json:"rules"`
}

// TagList is the answer of /v1/tags.
type TagList struct {
	ServiceTags *ServiceTags `json:"serviceTags,omitempty"` // the file; absent without one
	Tags        []TagSummary `json:"tags"`                  // the built-in ones, then the file's, both by name
}

// TagQuestion asks what a tag stands for.
type TagQuestion struct {
	Name string // in any case
	// Subnet or NetworkInterface, by name or id, says where: VirtualNetwork and Internet
	// differ between subnets. Of a NIC it is the primary ipConfiguration's subnet.
	Subnet, NetworkInterface string
}

// TagDetails is the answer of /v1/tag.
type TagDetails struct {
	TagSummary
	Subnet   string   `json:"subnet,omitempty"` // id of the subnet that was asked about
	Prefixes []string `json:"prefixes"`         // in the file's order
}

// tagBook is a policy with its service tag file, nil without one. Not safe for concurrent use: a
// file remembers what was asked for in vain.
type tagBook struct {
	snapshot *topology.Snapshot
	file     *arm.ServiceTags
}

func (b *tagBook) list() *TagList {
	used := b.used()
	list := &TagList{ServiceTags: editionOf(b.file), Tags: []TagSummary{}}
	for _, name := range ruleset.BuiltInTagNames() {
		list.Tags = append(list.Tags, TagSummary{Name: name, Kind: BuiltInKind, Rules: used[name]})
	}
	if b.file != nil {
		for _, f := range b.file.All() {
			list.Tags = append(list.Tags, b.summary(&f, used))
		}
	}
	return list
}

func (b *tagBook) summary(f *arm.TagFacts, used map[string]int) TagSummary {
	features := f.NetworkFeatures
	if parent, _, regional := strings.Cut(f.Name, "."); regional && features == nil {
		of, _ := b.file.Facts(parent)
		features = of.NetworkFeatures
	}
	return TagSummary{Name: f.Name, Kind: ServiceTagKind, ChangeNumber: f.ChangeNumber, Region: f.Region, SystemService: f.SystemService,
		NetworkFeatures: features, IPv4: f.IPv4, IPv6: f.IPv6, Rules: used[f.Name]}
}

// used counts the rules that name each tag.
func (b *tagBook) used() map[string]int {
	used := map[string]int{}
	for _, g := range b.snapshot.Policy.Groups() {
		for _, d := range []ruleset.Direction{ruleset.Inbound, ruleset.Outbound} {
			rules := g.Ordered(d)
			for i := range rules {
				named := map[string]bool{} // a rule counts once
				for _, side := range []*ruleset.Peer{&rules[i].Source, &rules[i].Destination} {
					side.Each(func(p *ruleset.Peer) { named[p.Tag] = true })
				}
				for tag := range named {
					used[tag]++
				}
			}
		}
	}
	return used
}

func (b *tagBook) details(q TagQuestion) (*TagDetails, error) {
	subnet, err := b.subnet(q)
	if err != nil {
		return nil, err
	}
	d := &TagDetails{Prefixes: []string{}}
	if subnet != nil {
		d.Subnet = subnet.ID
	}
	var prefixes []netip.Prefix
	if tag, ok := ruleset.CanonicalBuiltInTag(q.Name); ok {
		if subnet == nil && (tag == ruleset.TagVirtualNetwork || tag == ruleset.TagInternet) {
			return nil, badRequest(fmt.Errorf("tag %s: it stands for something else in each subnet: name a subnet or a network interface", tag))
		}
		d.TagSummary = TagSummary{Name: tag, Kind: BuiltInKind, Rules: b.used()[tag]}
		prefixes, _ = b.snapshot.ExpandTag(subnet, tag)
	} else if prefixes, err = b.serviceTag(q.Name, d); err != nil {
		return nil, err
	}
	d.IPv4, d.IPv6 = 0, 0
	for _, p := range prefixes {
		d.Prefixes = append(d.Prefixes, p.String())
		if p.Addr().Is4() {
			d.IPv4++
		} else {
			d.IPv6++
		}
	}
	return d, nil
}

func (b *tagBook) serviceTag(name string, d *TagDetails) ([]netip.Prefix, error) {
	if b.file == nil {
		return nil, asError(fmt.Errorf("tag %q: there is no service tag file; known without one are %s", name, strings.Join(ruleset.BuiltInTagNames(), ", ")), http.StatusNotFound)
	}
	f, known := b.file.Facts(name)
	if !known {
		_, problem := b.file.Known(name)
		return nil, asError(fmt.Errorf("tag %q: %s", name, problem), http.StatusNotFound)
	}
	d.TagSummary = b.summary(&f, b.used())
	prefixes := b.file.Prefixes(name)
	if prefixes == nil {
		whole, err := b.file.Whole()
		if err != nil {
			return nil, err
		}
		prefixes = whole.Prefixes(name)
	}
	return prefixes, nil
}

// subnet is the one of a question; nil when it names none.
func (b *tagBook) subnet(q TagQuestion) (*policy.Subnet, error) {
	policy := b.snapshot.Policy
	switch {
	case q.Subnet != "" && q.NetworkInterface != "":
		return nil, badRequest(errors.New("a subnet and a network interface exclude each other"))
	case q.Subnet != "":
		subnet, err := policy.Subnet(q.Subnet)
		if err != nil {
			return nil, asError(err, http.StatusNotFound)
		}
		return subnet, nil
	case q.NetworkInterface != "":
		nic, err := policy.NetworkInterface(q.NetworkInterface)
		if err != nil {
			return nil, asError(err, http.StatusNotFound)
		}
		return primary(nic).Subnet, nil
	}
	return nil, nil
}

func editionOf(tags *arm.ServiceTags) *ServiceTags {
	if tags == nil {
		return nil
	}
	return &ServiceTags{File: tags.File, ChangeNumber: tags.ChangeNumber, Cloud: tags.Cloud, Tags: tags.Len()}
}
