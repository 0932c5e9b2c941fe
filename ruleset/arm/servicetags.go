package arm

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// ServiceTags is a service tag file: Microsoft's weekly ServiceTags_Public_DATE.json,
// or the answer of the service tag discovery API. Tags are found by name, whatever
// its case: the region that the file gives a tag is not always that of its name.
//
// networkFeatures, which lists where Azure takes a tag and is null for one that
// inherits it, is not held against a rule: NSGs took tags before the file said so.
type ServiceTags struct {
	File         string
	ChangeNumber string // of the whole file; grows with each edition; empty when the file has none
	Cloud        string // such as "Public"

	forgot   bool              // the prefixes of tags that are not in use, see keep
	digest   digest            // of the content; zero unless a Reader read it
	tags     map[string]tag    // by name in lower case
	problems map[string]string // of the first names that were asked for in vain, see maxHints
}

// tag is what is kept of a tag that may not be in use.
type tag struct {
	TagFacts
	// prefixes is nil when nobody used the tag, see keep.
	prefixes []netip.Prefix
}

func (t *tag) count() int { return t.IPv4 + t.IPv6 }

// TagFacts are what a service tag file says of a tag, its addresses apart.
type TagFacts struct {
	Name          string
	ChangeNumber  string // of this tag; empty when the file has none
	Region        string // empty for a tag of all regions; not always the end of the name
	SystemService string // such as "AzureStorage", often empty
	// NetworkFeatures says where Azure takes the tag; nil, as most regional ones are,
	// is what the tag without the region says.
	NetworkFeatures []string
	IPv4, IPv6      int // the numbers of its prefixes
}

// Known resolves a tag's name for ruleset's validation.
func (t *ServiceTags) Known(name string) (canonical, problem string) {
	key := strings.ToLower(name)
	found, ok := t.tags[key]
	if ok && found.count() > 0 {
		return found.Name, ""
	}
	if ok {
		return "", "the tag " + found.Name + " has no address prefixes in " + t.File
	}
	problem, ok = t.problems[key]
	switch {
	case ok:
	case len(t.problems) < maxHints:
		problem = t.lacks(t.hint(key))
		t.problems[key] = problem
	default:
		problem = t.lacks("")
	}
	return "", problem
}

// lacks says that the file has no tag of a name.
func (t *ServiceTags) lacks(hint string) string {
	edition := ""
	if t.ChangeNumber != "" {
		edition = ", change number " + t.ChangeNumber + ","
	}
	return fmt.Sprintf("no service tag of that name is known: %s has %d%s and not this one%s", t.File, len(t.tags), edition, hint)
}

// Prefixes are those of a tag, by its name in any case; nil when the file has no such
// tag. They are in the file's order and must not be changed.
func (t *ServiceTags) Prefixes(name string) []netip.Prefix {
	return t.tags[strings.ToLower(name)].prefixes
}

// put remembers a tag's prefixes again.
func (t *ServiceTags) put(name string, prefixes []netip.Prefix) {
	key := strings.ToLower(name)
	t.tags[key] = tag{t.tags[key].TagFacts, prefixes}
}

// Len is the number of tags.
func (t *ServiceTags) Len() int { return len(t.tags) }

// keep forgets the prefixes of the tags that are not in use.
func (t *ServiceTags) keep(used map[string][]netip.Prefix) {
	for key, of := range t.tags {
		if _, ok := used[of.Name]; !ok && of.prefixes != nil {
			of.prefixes = nil
			t.tags[key] = of
			t.forgot = true
		}
	}
}

// ReadServiceTags reads a service tag file whole. The error may be ruleset.Faults.
func ReadServiceTags(file string) (*ServiceTags, error) {
	data, err := readRegular(file)
	if err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	tags, faults := ParseServiceTags(file, data)
	if len(faults) > 0 {
		return nil, faults
	}
	return tags, nil
}

// Whole are the tags with the prefixes of all of them. Those of a Reader have only the
// prefixes that its policy uses: the file is read again then, and it is an error when it
// is not what it was.
func (t *ServiceTags) Whole() (*ServiceTags, error) {
	if !t.forgot {
		return t, nil
	}
	data, err := readRegular(t.File)
	if err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	if sha256.Sum256(data) != t.digest {
		return nil, fmt.Errorf("service tags: %s has changed since it was read: reload to use it", t.File)
	}
	whole, faults := ParseServiceTags(t.File, data)
	if len(faults) > 0 { // cannot be: the content has been read before
		return nil, faults
	}
	return whole, nil
}

// Facts are those of a tag, by its name in any case.
func (t *ServiceTags) Facts(name string) (f TagFacts, ok bool) {
	found, ok := t.tags[strings.ToLower(name)]
	return found.TagFacts, ok
}

// All are the facts of every tag, by name.
func (t *ServiceTags) All() []TagFacts {
	all := make([]TagFacts, 0, len(t.tags))
	for _, of := range t.tags {
		all = append(all, of.TagFacts)
	}
	slices.SortFunc(all, func(a, b TagFacts) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// maxHints is how many unknown names get a hint: each is compared with every tag, and a
// policy whose names are all unknown has the wrong file, not slips of the pen.
const maxHints = 50

// hint says what a tag's name in lower case was probably meant to be.
func (t *ServiceTags) hint(name string) string {
	near := ruleset.NewNearMiss(name)
	base, _, regional := strings.Cut(name, ".")
	for key, of := range t.tags {
		near.Try(of.Name, key, regional && key == base)
	}
	for _, builtIn := range ruleset.BuiltInTagNames() {
		near.Try(builtIn, strings.ToLower(builtIn), false)
	}
	return near.Hint()
}
