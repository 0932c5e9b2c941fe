package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// validation is the JSON of validate.
type validation struct {
	Valid  bool            `json:"valid"`
	Faults []inspect.Fault `json:"faults"`
	// Unresolved are template expressions, which may be valid or not.
	Unresolved []inspect.Fault `json:"unresolved"`
	// Warnings are valid, but seldom meant.
	Warnings []inspect.Fault      `json:"warnings"`
	Read     inspect.PolicyCounts `json:"read"`
}

func init() { addVerb(newValidate) }

func newValidate(g *global) *cobra.Command {
	var serviceTags string
	var deployment arm.Deployment
	c := &cobra.Command{
		Use:   "validate PATH... [--service-tags FILE] [--parameters FILE|NAME=VALUE]",
		Short: "List every fault of ARM files, with Azure's error codes",
		Long: `List every fault of ARM files, with Azure's error codes.

ARM templates are evaluated first, with --parameters, or NAME.parameters.json beside NAME.json,
or the parameters' defaults. What can't be evaluated is a note that says why. The output of
"terraform show -json" is read too.

With --service-tags, Microsoft's service tag file, a rule that names a tag which the file
lacks is a fault; without, every name that could be a tag's is taken.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("validate: at least one file or folder is needed")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, paths []string) error {
			reader := arm.NewReader(serviceTags, paths...)
			deployment.Context = c.Context()
			reader.SetDeployment(deployment)
			documents := reader.Read()
			v := &validation{
				Valid: len(documents.Faults) == 0, Faults: inspect.Faults(documents.Faults),
				Unresolved: inspect.Faults(documents.Unresolved), Warnings: inspect.Faults(documents.Warnings), Read: inspect.CountPolicy(documents.Set),
			}
			if err := show(c, g, v, nil, validationTable); err != nil {
				return err
			}
			if !v.Valid {
				return errNegative
			}
			return nil
		},
	}
	c.Flags().StringVar(&serviceTags, "service-tags", "", "Microsoft's service tag file")
	addDeployment(c, &deployment)
	return c
}

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
	verdict := "valid"
	if !v.Valid {
		verdict = "invalid"
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s; read %s\n", verdict, plural(len(v.Faults), "fault"), plural(len(v.Unresolved), "unresolved expression"), v.Read)
	return err
}

func printFault(w io.Writer, kind string, f *inspect.Fault) {
	fmt.Fprintf(w, "%s %s\n", kind, f.Code)
	for _, line := range []struct{ name, value string }{
		{"file", f.File}, {"resource", f.Resource}, {"rule", f.Rule}, {"field", f.Field}, {"value", f.Value}, {"message", f.Message},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", line.name, printable(line.value))
		}
	}
}
