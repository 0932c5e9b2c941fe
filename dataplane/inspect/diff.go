package inspect

import (
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
)

// Diff compares two policies, see ask.Diff. What a partial policy leaves out is in the result's Open.
func Diff(old, new *Loaded, maxStates int) *ask.DiffResult {
	result := ask.Diff(old.Snapshot, new.Snapshot, ask.DiffOptions{MaxStates: maxStates, OpenRules: append(old.openRules(), new.openRules()...)})
	result.Open = append(opened("old", old), opened("new", new)...)
	return result
}

func (l *Loaded) openRules() (list []ask.DiffOpenRule) {
	if l.documents == nil {
		return nil
	}
	for _, r := range l.documents.OpenRules() {
		if r.Inbound {
			list = append(list, ask.DiffOpenRule{Group: r.Group, Name: r.Name, Direction: ruleset.Inbound})
		}
		if r.Outbound {
			list = append(list, ask.DiffOpenRule{Group: r.Group, Name: r.Name, Direction: ruleset.Outbound})
		}
	}
	return list
}

func opened(policy string, l *Loaded) []ask.DiffOpen {
	list := []ask.DiffOpen{}
	if l.documents == nil {
		return list
	}
	for i := range l.documents.Unresolved {
		f := &l.documents.Unresolved[i]
		list = append(list, ask.DiffOpen{Policy: policy, File: f.File, Resource: f.Resource, Rule: f.Rule, Field: f.Field, Message: f.Message})
	}
	return list
}
