package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newAttach) }

func newAttach(g *global) *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "attach ATTACHMENT",
		Short: "Attach something while the daemon runs; everything else carries on",
		Long: "Attach something while the daemon runs: ATTACHMENT is one of nsgd.yaml's attachments, as YAML or JSON.\n" +
			"The next reload detaches it again, unless the file has it by then or --keep is given.",
		Example: `  nsgctl attach '{networkInterface: vm5-nic, netns: vm5, create: true, device: eth0}'
  nsgctl attach --keep '{networkInterface: vm5-nic, netns: vm5, device: eth0}'`,
		Args: oneArgument("an attachment"),
		RunE: func(c *cobra.Command, args []string) error {
			changed, err := g.client().Attach(c.Context(), &control.AttachParameters{Attachment: args[0], Keep: keep})
			return g.rearranged(c, changed, err)
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "keep it attached when the configuration is read again")
	return c
}

// oneArgument takes exactly one argument.
func oneArgument(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 || args[0] == "" {
			return usageError{fmt.Errorf("%s: %s is needed, in one argument", verbName(c), what)}
		}
		return nil
	}
}

// rearranged shows what has become of the attachments.
func (g *global) rearranged(c *cobra.Command, r *inspect.Reloaded, err error) error {
	if refused := g.refused(c, err, "refused, the attachments stay as they are", "change"); refused != nil {
		return refused
	}
	return show(c, g, r, err, func(w io.Writer, r *inspect.Reloaded) error {
		_, err := fmt.Fprintf(w, "%s: generation %d, change %s\n", printable(r.Attachments.String()), r.Generation, printable(r.ID))
		return errors.Join(err, leftTable(w, r))
	})
}

// leftTable says what is left over behind a change of attachments.
func leftTable(w io.Writer, r *inspect.Reloaded) error {
	if r.Left == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "left over: %s\n", printable(r.Left))
	return err
}
