package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/spf13/cobra"
)

// refusal is the JSON of lint, diff and test in place of their answer, when they can't give one.
type refusal struct {
	Faults []inspect.Fault `json:"faults"`
}

// refused prints why there is no answer in the format that was asked for, and returns the error: a pipeline reads the format
// whatever the exit code is. A table has the error alone.
func refused(c *cobra.Command, g *global, err error) error {
	if g.output == outputTable || c.Context().Err() != nil || errors.Is(err, control.ErrNoDaemon) || errors.Is(err, context.Canceled) {
		return err
	}
	if g.compiled != nil {
		return err // the query is about another answer
	}
	if failed := showReport(c, g, &refusal{Faults: inspect.Faults(faultsOf(err))}, nil, refusalEntries); failed != nil {
		return failed
	}
	return err
}

// faultsOf takes the faults with their places out of an error; what has no place is one fault.
func faultsOf(err error) (faults ruleset.Faults) {
	var policy *inspect.PolicyError
	var text yamlfile.Faults
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			faults = append(faults, faultsOf(one)...)
		}
		return faults
	}
	switch {
	case errors.As(err, &policy):
		return slices.Concat(policy.Faults, policy.Unresolved)
	case errors.As(err, &text):
		for _, f := range text {
			faults = append(faults, ruleset.Fault{Code: codeWrongFile, File: f.File, Line: f.Line, Column: f.Column, Message: f.Message})
		}
		return faults
	}
	var usage usageError
	if errors.As(err, &usage) {
		return faultsOf(usage.error)
	}
	return ruleset.Faults{{Code: codeRefused, Message: err.Error()}}
}

// codeWrongFile is our own code, for a test file or a file of waivers.
const codeWrongFile = "FileNotUnderstood"

func refusalEntries(r *refusal) (entries []report.Entry) {
	for i := range r.Faults {
		f := &r.Faults[i]
		e := report.Entry{Name: f.Code, Code: f.Code, Check: "A fault, so that nothing is judged", Level: report.Error, File: f.File, Line: f.Line, Column: f.Column, Resource: f.Resource}
		if f.Rule != "" {
			e.Resource += ", rule " + f.Rule
		}
		var field []string
		if f.Field != "" {
			field = append(field, f.Field)
		}
		if f.Value != "" {
			field = append(field, fmt.Sprintf("%q", f.Value))
		}
		e.Message = cmp.Or(f.Message, f.Code)
		if len(field) > 0 {
			e.Message = strings.Join(field, " ") + ": " + e.Message
		}
		entries = append(entries, e)
	}
	return entries
}
