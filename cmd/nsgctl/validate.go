package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// validation is the JSON of validate.
type validation struct {
	Valid  bool            `json:"valid"`
	Faults []control.Fault `json:"faults"`
	// Unresolved are template expressions, neither valid nor invalid.
	Unresolved []control.Fault `json:"unresolved"`
	// Warnings are what is valid and seldom meant.
	Warnings []control.Fault      `json:"warnings"`
	Read     control.PolicyCounts `json:"read"`
}

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
			reader.SetDeployment(deployment)
			documents := reader.Read()
			v := &validation{
				Valid: len(documents.Faults) == 0, Faults: control.Faults(documents.Faults),
				Unresolved: control.Faults(documents.Unresolved), Warnings: control.Faults(documents.Warnings), Read: control.CountPolicy(documents.Set),
			}
			if err := g.print(c.OutOrStdout(), v, v.table); err != nil {
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

// table prints a block a fault: a message and a path in one row would never fit.
func (v *validation) table(w io.Writer) error {
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

func printFault(w io.Writer, kind string, f *control.Fault) {
	fmt.Fprintf(w, "%s %s\n", kind, f.Code)
	for _, line := range []struct{ name, value string }{
		{"file", f.File}, {"resource", f.Resource}, {"rule", f.Rule}, {"field", f.Field}, {"value", f.Value}, {"message", f.Message},
	} {
		if line.value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", line.name, printable(line.value))
		}
	}
}

// printable writes what would move a terminal's cursor, or begin a line that looks
// like one of ours, as an escape: documents may come from anybody.
func printable(text string) string {
	if !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unprintable(r) {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printableLines is printable for text of several lines, as errors are.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = printable(strings.ReplaceAll(lines[i], "\t", "  "))
	}
	return strings.Join(lines, "\n")
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

func plural(n int, singular string) string {
	if n == 1 {
		return "1 " + singular
	}
	return fmt.Sprintf("%d %ss", n, singular)
}
