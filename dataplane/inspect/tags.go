package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
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
	// NetworkFeatures says where Azure takes the tag. A tag that lists none has those of the
	// tag without the region.
	NetworkFeatures []string `json:"networkFeatures,omitempty"`
	// IPv4 and IPv6 count the prefixes. They are 0 for a built-in tag in a list, which names
	// no subnet.
	IPv4 int `json:"ipv4"`
	IPv6 int `json:"ipv6"`
	// Rules counts the policy's rules that name the tag, each NSG's default rules included.
	Rules int `json:"rules"`
}

// TagList holds the tags that rules can name.
type TagList struct {
	ServiceTags *ServiceTags `json:"serviceTags,omitempty"` // the file; absent without one
	Tags        []TagSummary `json:"tags"`                  // the built-in ones, then the file's, both by name
}

// TagQuestion asks what a tag stands for.
type TagQuestion struct {
	Name string // in any case
	// Subnet or NetworkInterface, by name or id, says where: VirtualNetwork and Internet
	// differ between subnets. A NIC stands for its primary ipConfiguration's subnet.
	Subnet, NetworkInterface string
}

// TagDetails is what a tag stands for.
type TagDetails struct {
	TagSummary
	Subnet   string   `json:"subnet,omitempty"` // id of the subnet that was asked about
	Prefixes []string `json:"prefixes"`         // in the file's order
}

// ServiceTags is the edition of a service tag file.
type ServiceTags struct {
	File         string `json:"file"`
	ChangeNumber string `json:"changeNumber"` // Microsoft's, of the whole file; empty when it has none
	Cloud        string `json:"cloud"`
	Tags         int    `json:"tags"` // in the file, used or not
}

// Check says what can't be answered whatever the policy is.
func (q *TagQuestion) Check() error {
	if q.Subnet != "" && q.NetworkInterface != "" {
		return errors.New("a subnet and a network interface exclude each other")
	}
	tag, _ := ruleset.CanonicalBuiltInTag(q.Name)
	if q.Subnet+q.NetworkInterface == "" && (tag == ruleset.TagVirtualNetwork || tag == ruleset.TagInternet) {
		return fmt.Errorf("tag %s: it stands for something else in each subnet: name a subnet or a network interface", tag)
	}
	return nil
}

// Tags lists the tags of the running policy. It waits for a reload to end.
func (s *Service) Tags() *TagList {
	s.loading.Lock()
	defer s.loading.Unlock()
	return (&Loaded{Snapshot: s.Snapshot(), ServiceTags: s.tagFile}).Tags()
}

// Tag says what a tag stands for in the running policy. It waits for a reload to end.
func (s *Service) Tag(q TagQuestion) (*TagDetails, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	return (&Loaded{Snapshot: s.Snapshot(), ServiceTags: s.tagFile}).Tag(q)
}

// Tags lists the built-in tags, then those of the service tag file.
func (l *Loaded) Tags() *TagList {
	used := l.used()
	list := &TagList{ServiceTags: editionOf(l.ServiceTags), Tags: []TagSummary{}}
	for _, name := range ruleset.BuiltInTagNames() {
		list.Tags = append(list.Tags, TagSummary{Name: name, Kind: BuiltInKind, Rules: used[name]})
	}
	if l.ServiceTags != nil {
		for _, f := range l.ServiceTags.All() {
			list.Tags = append(list.Tags, l.summary(&f, used))
		}
	}
	return list
}

func (l *Loaded) summary(f *arm.TagFacts, used map[string]int) TagSummary {
	features := f.NetworkFeatures
	if parent, _, regional := strings.Cut(f.Name, "."); regional && features == nil {
		of, _ := l.ServiceTags.Facts(parent)
		features = of.NetworkFeatures
	}
	return TagSummary{Name: f.Name, Kind: ServiceTagKind, ChangeNumber: f.ChangeNumber, Region: f.Region, SystemService: f.SystemService,
		NetworkFeatures: features, IPv4: f.IPv4, IPv6: f.IPv6, Rules: used[f.Name]}
}

// used counts the rules that name each tag.
func (l *Loaded) used() map[string]int {
	used := map[string]int{}
	for _, g := range l.Snapshot.Policy.Groups() {
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

// Tag says what a tag stands for.
func (l *Loaded) Tag(q TagQuestion) (*TagDetails, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	subnet, err := l.subnet(q)
	if err != nil {
		return nil, err
	}
	d := &TagDetails{Prefixes: []string{}}
	if subnet != nil {
		d.Subnet = subnet.ID
	}
	var prefixes []netip.Prefix
	if tag, ok := ruleset.CanonicalBuiltInTag(q.Name); ok {
		d.TagSummary = TagSummary{Name: tag, Kind: BuiltInKind, Rules: l.used()[tag]}
		prefixes, _ = l.Snapshot.ExpandTag(subnet, tag)
	} else if prefixes, err = l.serviceTag(q.Name, d); err != nil {
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

func (l *Loaded) serviceTag(name string, d *TagDetails) ([]netip.Prefix, error) {
	if l.ServiceTags == nil {
		return nil, fmt.Errorf("tag %q: there is no service tag file; known without one are %s", name, strings.Join(ruleset.BuiltInTagNames(), ", "))
	}
	f, known := l.ServiceTags.Facts(name)
	if !known {
		_, problem := l.ServiceTags.Known(name)
		return nil, fmt.Errorf("tag %q: %s", name, problem)
	}
	d.TagSummary = l.summary(&f, l.used())
	prefixes := l.ServiceTags.Prefixes(name)
	if prefixes == nil {
		whole, err := l.ServiceTags.Whole()
		if err != nil {
			return nil, err
		}
		prefixes = whole.Prefixes(name)
	}
	return prefixes, nil
}

// subnet is the one that the question names; nil when it names none.
func (l *Loaded) subnet(q TagQuestion) (*policy.Subnet, error) {
	set := l.Snapshot.Policy
	if q.Subnet != "" {
		return set.Subnet(q.Subnet)
	}
	if q.NetworkInterface == "" {
		return nil, nil
	}
	nic, err := set.NetworkInterface(q.NetworkInterface)
	if err != nil {
		return nil, err
	}
	return ask.Primary(nic).Subnet, nil
}

func editionOf(tags *arm.ServiceTags) *ServiceTags {
	if tags == nil {
		return nil
	}
	return &ServiceTags{File: tags.File, ChangeNumber: tags.ChangeNumber, Cloud: tags.Cloud, Tags: tags.Len()}
}
