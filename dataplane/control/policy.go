package control

import (
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
	partial     bool
	left        ruleset.Faults
	warnings    []string
}

// NewPolicyFiles names files and folders of ARM JSON, and the service tag file, empty for
// none.
func NewPolicyFiles(serviceTags string, paths ...string) *PolicyFiles {
	return &PolicyFiles{paths: paths, serviceTags: serviceTags, reader: arm.NewReader(serviceTags, paths...)}
}

// SetDeployment says what ARM templates among the files are evaluated with; a partial one
// makes Load leave out what can't be. It belongs before the first Load.
func (f *PolicyFiles) SetDeployment(d arm.Deployment) {
	f.partial = d.Partial
	f.reader.SetDeployment(d)
}

// LeftOut is what the last Load left out of the policy, because it can't be evaluated.
func (f *PolicyFiles) LeftOut() ruleset.Faults { return f.left }

// Load reads the files as a policy to be enforced: whole, or not at all. The error is a
// PolicyError when the documents are to blame.
func (f *PolicyFiles) Load() (*policy.Set, error) {
	documents := f.reader.Read()
	faults := documents.Faults
	if f.serviceTags == "" {
		faults = documents.FaultsWithUnknownTags()
	}
	if len(faults) > 0 || len(documents.Unresolved) > 0 && !f.partial {
		return nil, &PolicyError{Faults: faults, Unresolved: documents.Unresolved}
	}
	f.left = documents.Unresolved
	f.warnings = f.warnings[:0:0]
	for i := range documents.Warnings {
		f.warnings = append(f.warnings, documents.Warnings[i].Error())
	}
	return documents.Set, nil
}

// Warnings are what the policy that was last loaded says and seldom means.
func (f *PolicyFiles) Warnings() []string { return f.warnings }

// edition is the service tag file as it was last loaded; nil without one.
func (f *PolicyFiles) edition() *ServiceTags {
	return editionOf(f.reader.ServiceTags())
}

// LoadPolicy loads files and folders of ARM JSON, without a service tag file.
func LoadPolicy(paths ...string) (*policy.Set, error) { return NewPolicyFiles("", paths...).Load() }
