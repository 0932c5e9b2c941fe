package control

import (
	"slices"

	"github.com/nsgd/nsgd/ruleset/arm"
)

// LoadPolicy reads files and folders of ARM JSON as a policy to be enforced: whole, or
// not at all. The error is a PolicyError when the documents are to blame.
func LoadPolicy(paths ...string) (*arm.Set, error) {
	documents := arm.Load(paths...)
	faults := slices.Concat(documents.Faults, documents.UnknownTags())
	if len(faults) > 0 || len(documents.Unresolved) > 0 {
		return nil, &PolicyError{Faults: faults, Unresolved: documents.Unresolved}
	}
	return documents.Set, nil
}
