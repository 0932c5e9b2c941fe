package main

import (
	"errors"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/spf13/cobra"
)

// source are the flags of verbs that can do without a daemon.
type source struct {
	policy      []string
	serviceTags string
	azureQuirks bool
}

func (s *source) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.policy, "policy", nil, "answer from this file or folder of ARM JSON instead of the daemon; more may follow as arguments")
	c.Flags().StringVar(&s.serviceTags, "service-tags", "", "with --policy: Microsoft's service tag file, for the tags that it names")
	c.Flags().BoolVar(&s.azureQuirks, "azure-quirks", false, "with --policy: imitate what Azure does against its documents, as azureQuirks of the daemon")
}

// args takes the further paths after --policy PATH.
func (s *source) args(c *cobra.Command, args []string) error {
	if len(s.policy) == 0 {
		return noArgs(c, args)
	}
	s.policy = append(s.policy, args...)
	return nil
}

// open chooses who answers.
func (s *source) open(g *global) (control.Answerer, error) {
	if len(s.policy) > 0 {
		return control.NewPolicyFiles(s.serviceTags, s.policy...).OpenWith(topology.Options{AzureQuirks: s.azureQuirks})
	}
	if s.azureQuirks {
		return nil, usageError{errors.New("--azure-quirks goes with --policy: the daemon's setting is in its configuration")}
	}
	if s.serviceTags != "" {
		return nil, usageError{errors.New("--service-tags goes with --policy: the daemon's service tag file is in its configuration")}
	}
	return control.NewClient(g.socket), nil
}
