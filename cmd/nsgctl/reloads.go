package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newReloads) }

func newReloads(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "reloads",
		Short:   "List the last reloads: when, who asked, how long it took and how it went",
		Example: `  nsgctl reloads -o json`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := g.client().Reloads(c.Context())
			return show(c, g, list, err, reloadsTable)
		},
	}
}

func reloadsTable(w io.Writer, list *inspect.ReloadList) error {
	table := newGrid(w, "BEGAN", "RELOAD", "BY", "TOOK", "GENERATION", "RESULT")
	for i := range list.Reloads {
		r := &list.Reloads[i]
		result, _, _ := strings.Cut(r.Error, "\n")
		if result == "" {
			result = "reloaded"
		}
		table.row(r.Began.Local().Format(time.DateTime), r.ID, r.Cause, time.Duration(r.Milliseconds*float64(time.Millisecond)).Round(time.Millisecond/10), r.Generation, result)
	}
	if err := table.flush(); err != nil {
		return err
	}
	if list.Earlier > 0 {
		fmt.Fprintf(w, "%d earlier ones are not remembered\n", list.Earlier)
	}
	return nil
}
