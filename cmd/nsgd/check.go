package main

import (
	"errors"
	"fmt"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration and its policy, without root and without starting anything",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{errors.New("check: --config is missing")}
			}
			all, err := loadAll(path)
			if err != nil {
				return err
			}
			for _, left := range all.files.LeftOut() {
				fmt.Fprintf(c.ErrOrStderr(), "warning: left out of the policy: %v\n", left)
			}
			fmt.Fprintf(c.OutOrStdout(), "ok: %s\n", control.CountPolicy(all.policy))
			return nil
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file")
	return c
}

// loaded is a configuration with its policy; they fit.
type loaded struct {
	config   *Config
	files    *control.PolicyFiles
	policy   *arm.Set
	snapshot *topology.Snapshot
}

// loadAll loads a configuration and its policy and finds out whether they fit.
func loadAll(path string) (*loaded, error) {
	config, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	files := control.NewPolicyFiles(config.ServiceTags, config.Policy...)
	files.SetDeployment(config.deployment())
	policy, err := files.Load()
	if err != nil {
		return nil, err
	}
	snapshot, err := topology.Build(policy, config.specs(), topology.NewRegistry())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := planDevices(config, snapshot); err != nil {
		return nil, err
	}
	return &loaded{config, files, policy, snapshot}, nil
}

// specs are the attachments as the topology wants them.
func (c *Config) specs() []topology.Spec {
	specs := make([]topology.Spec, len(c.Attachments))
	for i := range c.Attachments {
		switch a := &c.Attachments[i]; {
		case a.NetworkInterface != "":
			specs[i] = topology.Spec{Kind: topology.NetworkInterface, Reference: a.NetworkInterface}
		case a.Subnet != "":
			specs[i] = topology.Spec{Kind: topology.Subnet, Reference: a.Subnet}
		case a.Internet:
			specs[i] = topology.Spec{Kind: topology.Internet}
		default:
			specs[i] = topology.Spec{Kind: topology.Platform}
		}
	}
	return specs
}
