package main

import (
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/spf13/cobra"
)

func init() { addVerb(newDetach) }

func newDetach(g *global) *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "detach NAME",
		Short: "Detach something while the daemon runs: its device and its flows end, everything else carries on",
		Long: "Detach something while the daemon runs: NAME is an attachment's in nsgctl status.\n" +
			"The next reload attaches again what nsgd.yaml has, unless --keep is given.",
		Example: `  nsgctl detach vm5-nic
  nsgctl detach --keep vm5-nic`,
		Args: oneArgument("an attachment's name"),
		RunE: func(c *cobra.Command, args []string) error {
			changed, err := g.client().Detach(c.Context(), &control.DetachParameters{Name: args[0], Keep: keep})
			return g.rearranged(c, changed, err)
		},
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		return beginning(attachedNames(c, g), begun), cobra.ShellCompDirectiveNoFileComp
	}
	c.Flags().BoolVar(&keep, "keep", false, "keep it detached when the configuration is read again")
	return c
}

// attachedNames are what the daemon has attached. Errors give none: a completion is silent.
func attachedNames(c *cobra.Command, g *global) (names []string) {
	client := g.client()
	defer client.Close()
	status, err := client.Status(c.Context())
	if err != nil {
		return nil
	}
	for i := range status.Attachments {
		names = append(names, status.Attachments[i].Name)
	}
	return names
}
