package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/spf13/cobra"
)

// validation is the JSON of validate.
type validation struct {
	// Valid means that the daemon and verify take the policy. With --strict it means that
	// there are no warnings either.
	Valid  bool            `json:"valid"`
	Faults []inspect.Fault `json:"faults"`
	// Unresolved are template expressions, which may be valid or not.
	Unresolved []inspect.Fault `json:"unresolved"`
	// Warnings are valid, but seldom meant.
	Warnings []inspect.Fault      `json:"warnings"`
	Read     inspect.PolicyCounts `json:"read"`

	strict bool
}

func init() { addVerb(newValidate) }

func newValidate(g *global) *cobra.Command {
	var serviceTags string
	var strict bool
	var deployment arm.Deployment
	c := &cobra.Command{
		Use:   "validate PATH... [--strict] [--service-tags FILE] [--parameters FILE|NAME=VALUE]",
		Short: "List every fault of ARM files, with Azure's error codes",
		Long: `List every fault of ARM files, with Azure's error codes.

ARM templates are evaluated first, with --parameters, or NAME.parameters.json beside NAME.json,
or the parameters' defaults. What can't be evaluated is a note that says why. The output of
"terraform show -json" is read too, and so are az graph query's and what-if's.

With --service-tags, Microsoft's service tag file, a rule that names a tag which the file
lacks is a fault; without, every name that could be a tag's has a warning.

A policy with notes, or with tags that need the file, is incomplete: the daemon and verify
refuse it. --strict exits with 1 then, and when there is a warning.`,
		Example: `  nsgctl validate policy --strict
  nsgctl validate main.json --parameters main.parameters.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("validate: at least one file or folder is needed")}
			}
			return existing(c, "", args)
		},
		RunE: func(c *cobra.Command, paths []string) error {
			serviceTags := arm.DefaultServiceTags(serviceTags)
			reader := arm.NewReader(serviceTags, paths...)
			deployment.Context = c.Context()
			reader.SetDeployment(deployment)
			documents := reader.Read()
			var tags ruleset.Faults
			if serviceTags == "" {
				tags = documents.UnknownTags()
			}
			v := &validation{
				Faults: inspect.Faults(documents.Faults), Unresolved: inspect.Faults(documents.Unresolved),
				Warnings: inspect.Faults(slices.Concat(tags, documents.Warnings)), Read: inspect.CountPolicy(documents.Set), strict: strict,
			}
			v.Valid = len(v.Faults) == 0 && len(tags) == 0 && (deployment.Partial || len(v.Unresolved) == 0)
			if v.Valid {
				v.refuse(documents.Set)
			}
			for i := range v.Faults {
				v.Faults[i].OwnCode = arm.OwnCode(v.Faults[i].Code)
			}
			if strict && len(v.Warnings)+len(v.Unresolved) > 0 {
				v.Valid = false
			}
			if err := show(c, g, v, nil, validationTable); err != nil {
				return err
			}
			if len(v.Faults) > 0 || strict && !v.Valid {
				return errNegative
			}
			return nil
		},
	}
	c.Flags().StringVar(&serviceTags, "service-tags", "", "Microsoft's service tag file")
	c.Flags().BoolVar(&strict, "strict", false, "exit with 1 also when there are notes or warnings")
	addDeployment(c, &deployment)
	return c
}

// refuse adds what only shows when the policy is compiled, as the daemon does.
func (v *validation) refuse(set *policy.Set) {
	if _, err := (&topology.Options{}).Build(set, nil, topology.NewRegistry()); err != nil {
		v.Valid, v.Faults = false, append(v.Faults, inspect.Fault{Code: codeRefused, Message: err.Error()})
	}
}

// codeRefused is our own code, for a policy that can't be compiled.
const codeRefused = "PolicyRefused"

// validationTable prints a block a fault: a message and a path would not fit in one row.
func validationTable(w io.Writer, v *validation) error {
	for i := range v.Faults {
		printFault(w, "fault", &v.Faults[i])
	}
	for i := range v.Unresolved {
		printFault(w, "note", &v.Unresolved[i])
	}
	for i := range v.Warnings {
		printFault(w, "warning", &v.Warnings[i])
	}
	verdict, warnings := "valid", ""
	switch {
	case len(v.Faults) > 0 || v.strict && !v.Valid:
		verdict = "invalid"
	case !v.Valid:
		verdict = "incomplete"
	}
	if v.strict {
		warnings = ", " + plural(len(v.Warnings), "warning")
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s%s; read %s\n", verdict, plural(len(v.Faults), "fault"),
		plural(len(v.Unresolved), "unresolved expression"), warnings, v.Read)
	return err
}

func printFault(w io.Writer, kind string, f *inspect.Fault) {
	own, file := "", (&ruleset.Fault{File: f.File, Line: f.Line, Column: f.Column}).Place()
	if kind == "fault" && f.OwnCode {
		own = "this code is of nsgctl; Azure's is not known"
	}
	fmt.Fprintf(w, "%s %s\n", kind, f.Code)
	for _, line := range []struct{ name, value string }{
		{"file", file}, {"resource", f.Resource}, {"rule", f.Rule}, {"field", f.Field}, {"value", f.Value}, {"message", f.Message}, {"code", own},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", line.name, printable(line.value))
		}
	}
}
