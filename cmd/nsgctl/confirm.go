package main

import (
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newConfirm) }

func newConfirm(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Keep what `nsgctl reload --confirm` or `nsgd run --confirm` would take back: you still reach the host",
		Example: `  nsgctl confirm`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			confirmed, err := g.client().Confirm(c.Context())
			return show(c, g, confirmed, err, confirmedTable)
		},
	}
}

func confirmedTable(w io.Writer, c *inspect.Confirmed) error {
	text := "nothing waits for a confirmation"
	if c.Confirmed {
		text = "confirmed"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}
