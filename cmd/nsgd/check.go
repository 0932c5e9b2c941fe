package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
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
			all, err := loadAll(c.Context(), path)
			if err != nil {
				return err
			}
			for _, left := range all.files.LeftOut() {
				fmt.Fprintf(c.ErrOrStderr(), "warning: left out of the policy: %v\n", left)
			}
			for _, warning := range all.warnings {
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", warning)
			}
			fmt.Fprintf(c.OutOrStdout(), "ok: %s\n", inspect.CountPolicy(all.policy))
			return nil
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file")
	return c
}

// loaded is a configuration with its policy; they fit.
type loaded struct {
	config   *Config
	files    *inspect.PolicyFiles
	policy   *policy.Set
	snapshot *topology.Snapshot
	warnings []string // of what is valid and seldom meant
}

// loadAll loads a configuration and its policy and finds out whether they fit. ctx ends the evaluation of templates,
// now and at each reload.
func loadAll(ctx context.Context, path string) (*loaded, error) {
	config, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	files := inspect.NewPolicyFiles(config.ServiceTags, config.Policy...)
	deployment := config.deployment()
	deployment.Context = ctx
	files.SetDeployment(deployment)
	policy, err := files.Load()
	if err != nil {
		return nil, err
	}
	snapshot, err := config.topology().Build(policy, config.specs(), topology.NewRegistry())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := planDevices(config, snapshot); err != nil {
		return nil, err
	}
	all := &loaded{config, files, policy, snapshot, append(files.Warnings(), config.warnings()...)}
	return all, checkFlowLogs(path, all)
}

// topology is how the policy is understood.
func (c *Config) topology() topology.Options {
	o := topology.Options{AzureQuirks: c.AzureQuirks, DefaultOutbound: c.DefaultOutboundAddress.Addr}
	for i := range c.Attachments {
		if a := &c.Attachments[i]; a.Internet {
			o.ReachPrivate = a.ReachPrivate
			for _, p := range a.Prefixes {
				o.Outside = append(o.Outside, p.Prefix)
			}
		}
	}
	return o
}

// warnings are about what the configuration says and few mean.
func (c *Config) warnings() (list []string) {
	for i := range c.Attachments {
		a := &c.Attachments[i]
		for j, p := range a.Prefixes {
			if p.Bits() == 0 && a.Gateway != "" {
				list = append(list, fmt.Sprintf("attachments[%d].prefixes[%d]: %s: wherever this is learned the tag VirtualNetwork stands for every address of this family: AllowVnetInBound and AllowVnetOutBound allow everything there, and Internet stands for nothing", i, j, p))
			}
		}
	}
	return list
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
		case a.Gateway != "":
			specs[i] = topology.Spec{Kind: topology.Gateway, Reference: a.Gateway}
			for _, p := range a.Prefixes {
				specs[i].Prefixes = append(specs[i].Prefixes, p.Prefix)
			}
		default:
			specs[i] = topology.Spec{Kind: topology.Platform}
		}
	}
	return specs
}
