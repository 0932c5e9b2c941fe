package main

import (
	"errors"
	"fmt"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// source are the flags of verbs that can do without a daemon.
type source struct {
	policy      []string
	serviceTags string
	deployment  arm.Deployment
	command     *cobra.Command
}

func (s *source) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.policy, "policy", nil, "answer from this file or folder of ARM JSON instead of the daemon; more may follow as arguments")
	c.Flags().StringVar(&s.serviceTags, "service-tags", "", "with --policy: Microsoft's service tag file, for the tags that it names")
	addDeployment(c, &s.deployment)
	s.command = c
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
		files := control.NewPolicyFiles(s.serviceTags, s.policy...)
		files.SetDeployment(s.deployment)
		answerer, err := files.Open()
		if err != nil {
			return nil, err
		}
		warnLeft(s.command.ErrOrStderr(), files.LeftOut())
		return answerer, nil
	}
	for _, name := range deploymentFlags {
		if s.command.Flags().Changed(name) {
			return nil, usageError{fmt.Errorf("--%s goes with --policy: the daemon's templates are evaluated as its configuration says", name)}
		}
	}
	if s.serviceTags != "" {
		return nil, usageError{errors.New("--service-tags goes with --policy: the daemon's service tag file is in its configuration")}
	}
	return control.NewClient(g.socket), nil
}
