package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newReload) }

// reloadFlags are the flags of reload.
type reloadFlags struct {
	changeFlags
	dryRun bool
	limit  int
}

// defaultDryRun is how many changes and flows a dry run lists.
const defaultDryRun = 20

func newReload(g *global) *cobra.Command {
	var f reloadFlags
	c := &cobra.Command{
		Use:   "reload",
		Short: "Let the daemon read its configuration and policy again; flows and counters stay",
		Long: `Let the daemon read its configuration and policy again; flows and counters stay.

With --dry-run nothing changes. The answer tells which packets the rules would treat differently, which attachments
would change, and which live flows would end: by the code with which a reload judges them. diff --running lists all.

With --confirm the daemon returns by itself to what was in force, unless nsgctl confirm comes within that time.

With --max-cut a policy is refused that would cut more live flows: they are counted when nothing else can come between.`,
		Example: `  nsgctl reload --dry-run
  nsgctl reload --confirm 60s
  nsgctl reload --max-cut 0`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, g) },
	}
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would change, or why the reload would be refused")
	c.Flags().IntVar(&f.limit, "limit", defaultDryRun, "with --dry-run: list so many changes, and so many of the live flows that would end")
	f.changeFlags.flags(c)
	return c
}

func (f *reloadFlags) run(c *cobra.Command, g *global) error {
	confirms := c.Flags().Changed("confirm")
	switch {
	case confirms && f.dryRun:
		return usageError{errors.New("reload: --dry-run and --confirm exclude each other")}
	case f.dryRun && c.Flags().Changed("max-cut"):
		return usageError{errors.New("reload: --dry-run and --max-cut exclude each other")}
	case c.Flags().Changed("limit") && !f.dryRun:
		return usageError{errors.New("reload: --limit goes with --dry-run")}
	case f.limit < 1 || f.limit > inspect.MaxFlowLimit:
		return usageError{fmt.Errorf("reload: --limit %d: allowed are 1 to %d", f.limit, inspect.MaxFlowLimit)}
	}
	q, err := f.request(c)
	if err != nil {
		return err
	}
	client := g.client()
	if f.dryRun {
		diff, err := client.Diff(c.Context(), &inspect.RunningQuestion{Limit: f.limit, MaxChanges: f.limit})
		if refused := g.refused(c, err, "a reload would be refused", "reload"); refused != nil {
			return refused
		}
		return show(c, g, diff, err, diffTable)
	}
	reloaded, err := client.ReloadAs(c.Context(), q)
	if refused := g.refused(c, err, "reload refused, everything stays as it is", "reload"); refused != nil {
		return refused
	}
	return show(c, g, reloaded, err, reloadedTable)
}

func reloadedTable(w io.Writer, r *inspect.Reloaded) error {
	_, err := fmt.Fprintf(w, "reloaded: generation %d, %s, reload %s\n", r.Generation, r.PolicyCounts, printable(r.ID))
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
	if r.ConfirmBy != nil && err == nil {
		_, err = fmt.Fprintf(w, "taken back at %s, unless nsgctl confirm comes\n", r.ConfirmBy.Format(time.TimeOnly))
	}
	return err
}

// refused prints why the daemon refused something; for programs the faults come as JSON or YAML. kind stands before the
// id that the log has of it. It returns nil for errors that are no refusal.
func (g *global) refused(c *cobra.Command, err error, what, kind string) error {
	var refused *control.Error
	if !errors.As(err, &refused) {
		return nil
	}
	if g.output != outputTable {
		if err := g.answer(c.OutOrStdout()).Encode(refused); err != nil {
			return err
		}
	}
	if refused.Reload != "" {
		what += ", " + kind + " " + refused.Reload
	}
	return fmt.Errorf("%s:\n%w", what, refused)
}
