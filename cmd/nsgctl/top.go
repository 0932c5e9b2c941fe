package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgctl/top"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// The shortest and the longest interval: rates need a fifth of a second, and the daemon forgets
// what it saw after two minutes.
const shortestInterval, longestInterval = 250 * time.Millisecond, time.Minute

func init() { addVerb(newTop) }

func newTop(g *global) *cobra.Command {
	var o top.Options
	var once bool
	c := &cobra.Command{
		Use:   "top [--view rules|flows|talkers|drops] [--sort ORDER] [--reverse] [--filter TEXT] [--interval D] [--once]",
		Short: "Watch rules, flows, talkers and drops that lead, in a terminal",
		Example: `  nsgctl top
  nsgctl top --once --view drops`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkTop(&o); err != nil {
				return usageError{err}
			}
			client := g.client()
			defer client.Close()
			if !once && g.output == outputTable {
				if err := top.Terminal(c.InOrStdin(), c.OutOrStdout(), os.Getenv); err != nil {
					return usageError{fmt.Errorf("top: %w: --once or -o json needs none", err)}
				}
				o.ASCII = top.ASCII(os.Getenv)
				return top.Run(c.Context(), client, o, c.InOrStdin(), c.OutOrStdout())
			}
			reading, err := top.Once(c.Context(), client, o)
			if err != nil {
				return err
			}
			return show(c, g, reading, nil, top.WriteTable)
		},
	}
	f := c.Flags()
	f.StringVar((*string)(&o.View), "view", string(inspect.TopRules), "rules, flows, talkers or drops")
	f.StringVar(&o.Order, "sort", "", "order of the rows; the view's first when absent.\n"+orders())
	f.BoolVar(&o.Reverse, "reverse", false, "the smallest first")
	f.StringVar((*string)(&o.By), "by", string(inspect.ByPair), "talkers by pair, source or destination")
	f.StringVar(&o.Filter, "filter", "", "only rows with these words: parts of names; of flows and talkers also addresses, prefixes, ports")
	f.IntVar(&o.Limit, "limit", inspect.DefaultTopLimit, "with --once or -o json: at most so many rows")
	f.DurationVar(&o.Interval, "interval", time.Second, "time between two readings, 250ms to 1m")
	f.BoolVar(&once, "once", false, "print one table, with the rates of an interval; -o json prints JSON")
	complete(c, "view", words(texts(inspect.TopViews())...))
	complete(c, "by", words(texts(inspect.TalkersBys())...))
	complete(c, "sort", func(*cobra.Command) []string { return inspect.TopOrders(o.View) })
	return c
}

func texts[S ~string](list []S) (texts []string) {
	for _, v := range list {
		texts = append(texts, string(v))
	}
	return texts
}

// orders lists those of each view.
func orders() string {
	var lines []string
	for _, v := range inspect.TopViews() {
		lines = append(lines, fmt.Sprintf("%s: %s", v, strings.Join(inspect.TopOrders(v), ", ")))
	}
	return strings.Join(lines, "\n")
}

func checkTop(o *top.Options) error {
	if !slices.Contains(inspect.TopViews(), o.View) {
		return fmt.Errorf("top: --view %q: allowed are rules, flows, talkers and drops", o.View)
	}
	if orders := inspect.TopOrders(o.View); o.Order != "" && !slices.Contains(orders, o.Order) {
		return fmt.Errorf("top: --sort %q: allowed for %s are %s", o.Order, o.View, strings.Join(orders, ", "))
	}
	if !slices.Contains(inspect.TalkersBys(), o.By) {
		return fmt.Errorf("top: --by %q: allowed are pair, source and destination", o.By)
	}
	if o.Limit < 1 || o.Limit > inspect.MaxTopLimit {
		return fmt.Errorf("top: --limit %d: allowed are 1 to %d", o.Limit, inspect.MaxTopLimit)
	}
	if o.Interval < shortestInterval || o.Interval > longestInterval {
		return fmt.Errorf("top: --interval %v: allowed are %v to %v", o.Interval, shortestInterval, longestInterval)
	}
	if len(o.Filter) > inspect.MaxTopFilter {
		return errors.New("top: --filter: too long")
	}
	return nil
}
