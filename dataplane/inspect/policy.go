package inspect

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// PolicyFiles are where a policy is read from. They remember what they read, so that
// reading again costs what changed. Not safe for concurrent use.
type PolicyFiles struct {
	paths       []string
	serviceTags string
	reader      *arm.Reader
	emptyTags   bool
	deployment  arm.Deployment
	leftOut     ruleset.Faults
	openRules   []ask.DiffOpenRule // among them
	warnings    []string
}

// NewPolicyFiles names files and folders of ARM JSON, and the service tag file, empty for
// none.
func NewPolicyFiles(serviceTags string, paths ...string) *PolicyFiles {
	return &PolicyFiles{paths: paths, serviceTags: serviceTags, reader: arm.NewReader(serviceTags, paths...)}
}

// SetDeployment says what ARM templates among the files are evaluated with. With a partial
// deployment Load leaves out what can't be evaluated. Call it before the first Load.
func (f *PolicyFiles) SetDeployment(d arm.Deployment) {
	f.deployment = d
	f.reader.SetDeployment(d)
}

// KeepUnknownTags takes a policy without a service tag file though it names tags of one. They stand for no address: the
// policy is for looking at, not for enforcing.
func (f *PolicyFiles) KeepUnknownTags() { f.emptyTags = true }

// again are files that are read as these are: the same, or others in their place.
func (f *PolicyFiles) again(paths []string) *PolicyFiles {
	if len(paths) == 0 {
		paths = f.paths
	}
	other := NewPolicyFiles(f.serviceTags, paths...)
	other.SetDeployment(f.deployment)
	other.emptyTags = f.emptyTags
	return other
}

// Following are files of a policy in another place, whose first Load takes over what these have loaded and has not changed. The
// policy that these have loaded must not be modified.
func (f *PolicyFiles) Following(serviceTags string, paths ...string) *PolicyFiles {
	return &PolicyFiles{paths: paths, serviceTags: serviceTags, reader: f.reader.Following(serviceTags, paths...)}
}

// Taken are the files that the last Load took, sorted.
func (f *PolicyFiles) Taken() []string { return f.reader.Taken() }

// LeftOut is what the last Load left out of the policy, because it can't be evaluated.
func (f *PolicyFiles) LeftOut() ruleset.Faults { return f.leftOut }

// Load reads the files as a policy to be enforced: whole, or not at all. The error is a
// *PolicyError when the documents are to blame.
func (f *PolicyFiles) Load() (*policy.Set, error) {
	documents, err := f.read()
	if err != nil {
		return nil, err
	}
	return documents.Set, nil
}

func (f *PolicyFiles) read() (*arm.Documents, error) {
	documents := f.reader.Read()
	faults := documents.Faults
	switch {
	case f.serviceTags != "":
	case f.emptyTags:
		documents.KeepUnknownTags()
	default:
		faults = documents.FaultsWithUnknownTags()
	}
	unresolved := documents.Unresolved
	if f.deployment.Partial {
		unresolved = nil // which is no reason to refuse
	}
	if len(faults)+len(unresolved) > 0 {
		return nil, &PolicyError{Faults: faults, Unresolved: unresolved}
	}
	f.leftOut, f.openRules = documents.Unresolved, nil
	if len(f.leftOut) > 0 {
		f.openRules = openRules(documents)
	}
	f.warnings = f.warnings[:0:0]
	for i := range documents.Warnings {
		f.warnings = append(f.warnings, documents.Warnings[i].Error())
	}
	return documents, nil
}

// Open loads the files and compiles them, with the options of the topology that they are for.
func (f *PolicyFiles) Open(o topology.Options) (*Loaded, error) { return f.OpenChanged(o, nil) }

// OpenChanged is Open with a change of the policy before it is compiled: one that was read for this call alone. nil: none.
func (f *PolicyFiles) OpenChanged(o topology.Options, change func(*policy.Set) error) (*Loaded, error) {
	documents, err := f.read()
	if err != nil {
		return nil, err
	}
	open := openRules(documents) // which are told by what the set lacks
	if change != nil {
		if err := change(documents.Set); err != nil {
			return nil, err
		}
	}
	snapshot, err := o.Build(documents.Set, nil, topology.NewRegistry())
	if err != nil {
		return nil, err
	}
	return &Loaded{Snapshot: snapshot, ServiceTags: f.reader.ServiceTags(), documents: documents, open: open}, nil
}

// Loaded is a policy that was read and compiled. Not safe for concurrent use: a service tag
// file remembers which names it was asked for in vain.
type Loaded struct {
	Snapshot    *topology.Snapshot
	ServiceTags *arm.ServiceTags // nil without a service tag file

	documents *arm.Documents
	open      []ask.DiffOpenRule
	whole     *arm.ServiceTags // read when a tag is asked for that the policy does not name
}

// RulePosition is where a rule is written: empty and 0 when that is not known.
func (l *Loaded) RulePosition(g *ruleset.NSG, rule string) (file string, line, column int) {
	return l.documents.RulePosition(g, rule, "")
}

// Position is where a resource is written: empty and 0 when that is not known.
func (l *Loaded) Position(object any) (file string, line, column int) {
	return l.documents.Position(object)
}

// TagPrefixes are those of a service tag that the policy need not name. ok is false without a service tag file, and for a
// tag that the file lacks.
func (l *Loaded) TagPrefixes(name string) (prefixes []netip.Prefix, ok bool) {
	if l.ServiceTags == nil {
		return nil, false
	}
	if l.whole == nil {
		whole, err := l.ServiceTags.Whole()
		if err != nil {
			return nil, false
		}
		l.whole = whole
	}
	canonical, problem := l.whole.Known(name)
	return l.whole.Prefixes(canonical), problem == ""
}

// DocumentWarnings are what Azure accepts in the documents and few mean.
func (l *Loaded) DocumentWarnings() ruleset.Faults { return l.documents.Warnings }

// Warnings are about what the policy loaded last says, Azure accepts, and few mean.
func (f *PolicyFiles) Warnings() []string { return f.warnings }

// edition is the service tag file as it was last loaded; nil without one.
func (f *PolicyFiles) edition() *ServiceTags {
	return editionOf(f.reader.ServiceTags())
}

// tagsWritten is when that file was last written; zero without one.
func (f *PolicyFiles) tagsWritten() (t time.Time) {
	if tags := f.reader.ServiceTags(); tags != nil {
		t = tags.Written
	}
	return t
}

// PolicyError is why policy documents can't be enforced.
type PolicyError struct {
	// Faults are what Azure would refuse.
	Faults ruleset.Faults
	// Unresolved are template expressions: they may be valid, but can't be enforced.
	Unresolved ruleset.Faults
}

// Error lists every fault, one a line.
func (e *PolicyError) Error() string {
	var lines []string
	for _, list := range []ruleset.Faults{e.Faults, e.Unresolved} {
		for i := range list {
			lines = append(lines, list[i].Error())
		}
	}
	return strings.Join(lines, "\n")
}

// Fault is a fault of a policy document; see ruleset.Fault.
type Fault struct {
	Code string `json:"code"`
	File string `json:"file,omitempty"`
	// Line and Column are from 1, and left out where they are not known.
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Resource string `json:"resource,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Field    string `json:"field,omitempty"`
	Value    string `json:"value,omitempty"`
	Message  string `json:"message"`
	// OwnCode means that the code is not Azure's, which is not known. Only validate sets it, for faults.
	OwnCode bool `json:"ownCode,omitempty"`
}

// Faults converts faults for JSON; the result is never nil.
func Faults(list ruleset.Faults) []Fault {
	faults := make([]Fault, len(list))
	for i, f := range list {
		faults[i] = Fault{Code: f.Code, File: f.File, Line: f.Line, Column: f.Column, Resource: f.Resource, Rule: f.Rule, Field: f.Field, Value: f.Value, Message: f.Message}
	}
	return faults
}

// PolicyCounts says how much a policy holds.
type PolicyCounts struct {
	NetworkSecurityGroups     int `json:"networkSecurityGroups"`
	SecurityRules             int `json:"securityRules"` // without the default rules
	VirtualNetworks           int `json:"virtualNetworks"`
	Subnets                   int `json:"subnets"`
	NetworkInterfaces         int `json:"networkInterfaces"`
	ApplicationSecurityGroups int `json:"applicationSecurityGroups"`
}

// CountPolicy counts a policy's objects.
func CountPolicy(set *policy.Set) PolicyCounts {
	c := PolicyCounts{
		NetworkSecurityGroups:     len(set.NetworkSecurityGroups),
		VirtualNetworks:           len(set.VirtualNetworks),
		NetworkInterfaces:         len(set.NetworkInterfaces),
		ApplicationSecurityGroups: len(set.ApplicationSecurityGroups),
	}
	for _, g := range set.NetworkSecurityGroups {
		c.SecurityRules += len(g.Rules)
	}
	for _, v := range set.VirtualNetworks {
		c.Subnets += len(v.Subnets)
	}
	return c
}

// String is the counts in words.
func (c PolicyCounts) String() string {
	one := func(n int, singular string) string {
		if n == 1 {
			return "1 " + singular
		}
		return fmt.Sprintf("%d %ss", n, singular)
	}
	return strings.Join([]string{
		one(c.NetworkSecurityGroups, "network security group"), one(c.SecurityRules, "security rule"),
		one(c.VirtualNetworks, "virtual network"), one(c.Subnets, "subnet"),
		one(c.NetworkInterfaces, "network interface"), one(c.ApplicationSecurityGroups, "application security group"),
	}, ", ")
}
