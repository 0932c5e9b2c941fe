package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newReload) }

func newReload(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "reload",
		Short:   "Let the daemon read its configuration and policy again; flows and counters stay",
		Example: `  nsgctl reload`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reloaded, err := control.NewClient(g.socket).Reload(c.Context())
			var refused *control.Error
			if errors.As(err, &refused) {
				return g.refuse(c, refused, "reload refused, everything stays as it is")
			}
			return show(c, g, reloaded, err, reloadedTable)
		},
	}
}

func reloadedTable(w io.Writer, r *inspect.Reloaded) error {
	_, err := fmt.Fprintf(w, "reloaded: generation %d, %s\n", r.Generation, r.PolicyCounts)
	if c := r.Attachments; c != nil && err == nil {
		_, err = fmt.Fprintln(w, printable(c.String()))
	}
	err = errors.Join(err, leftTable(w, r))
	if c := r.ServiceTagChanges; c != nil && err == nil {
		_, err = fmt.Fprintf(w, "service tags: %s, before %s\n", edition(&c.New), edition(&c.Old))
		for i := range c.Rules {
			fmt.Fprintln(w, printable(c.Rules[i].String()))
		}
	}
	return err
}

// refuse prints why a change was refused; for programs the faults come as JSON or YAML.
func (g *global) refuse(c *cobra.Command, refused *control.Error, what string) error {
	if g.output != outputTable {
		if err := g.answer(c.OutOrStdout()).Encode(refused); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s:\n%w", what, refused)
}
