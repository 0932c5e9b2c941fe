package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// source are the flags of verbs that can do without a daemon.
type source struct {
	// of is what the verb asks about, nil when it has no such flags: its resource group is that
	// of templates too. Its flags are added first.
	of *target

	policy      []string
	serviceTags string
	azureQuirks bool
	outbound    string // address of default outbound access
	deployment  arm.Deployment
	command     *cobra.Command

	subscription topology.Subscription // of verbs that judge
}

func (s *source) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.policy, "policy", nil, "answer from this file or folder of ARM JSON instead of the daemon; more may follow as arguments")
	c.Flags().StringVar(&s.serviceTags, "service-tags", "", "with --policy: Microsoft's service tag file, for the tags that it names")
	c.Flags().StringVar(&s.outbound, "default-outbound-address", "", "with --policy: the public address of default outbound access, as defaultOutboundAddress of the daemon")
	s.policyFlags(c)
}

// policyFlags are those that say how a policy is understood.
func (s *source) policyFlags(c *cobra.Command) {
	c.Flags().BoolVar(&s.azureQuirks, "azure-quirks", false, "with --policy: imitate what Azure does against its documents, as azureQuirks of the daemon")
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
		return s.openFiles()
	}
	for _, name := range deploymentFlags {
		if s.command.Flags().Changed(name) && (s.of == nil || name != groupFlag) {
			return nil, usageError{fmt.Errorf("--%s goes with --policy: the daemon's templates are evaluated as its configuration says", name)}
		}
	}
	if s.azureQuirks {
		return nil, usageError{errors.New("--azure-quirks goes with --policy: the daemon's setting is in its configuration")}
	}
	if s.outbound != "" {
		return nil, usageError{errors.New("--default-outbound-address goes with --policy: the daemon's setting is in its configuration")}
	}
	if s.serviceTags != "" {
		return nil, usageError{errors.New("--service-tags goes with --policy: the daemon's service tag file is in its configuration")}
	}
	return control.NewClient(g.socket), nil
}

func (s *source) openFiles() (control.Answerer, error) {
	options := topology.Options{AzureQuirks: s.azureQuirks}
	if s.outbound != "" {
		a, err := netip.ParseAddr(s.outbound)
		if err != nil || !a.Is4() {
			return nil, usageError{fmt.Errorf("--default-outbound-address %q: allowed is an IPv4 address", s.outbound)}
		}
		options.DefaultOutbound = a
	}
	files := control.NewPolicyFiles(s.serviceTags, s.policy...)
	files.SetDeployment(s.templates())
	answerer, err := files.OpenWith(options)
	if err != nil {
		return nil, err
	}
	answerer.Subscribe(s.subscription)
	warnLeft(s.command.ErrOrStderr(), files.LeftOut())
	return answerer, nil
}

// subscriptionFlags are those that decide about TCP port 25.
func (s *source) subscriptionFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&s.subscription.Type, "subscription-type", "", "with --policy: enterprise, payg, msdn or csp, which decides about TCP port 25 to the internet; enterprise when absent")
	flags.BoolVar(&s.subscription.CreatedBefore20171115, "created-before-20171115", false, "with --subscription-type payg or csp: created before 15 November 2017")
	flags.BoolVar(&s.subscription.SMTPExempt, "smtp-exempt", false, "with --subscription-type payg or csp: exempted from the block of port 25")
}

func (s *source) checkSubscription(verb string) error {
	if field, err := s.subscription.Check(); err != nil {
		return usageError{fmt.Errorf("%s: %s %w", verb, map[string]string{"subscription": "--subscription-type",
			"createdBefore20171115": "--created-before-20171115", "smtpExempt": "--smtp-exempt"}[field], err)}
	}
	if s.subscription != (topology.Subscription{}) && len(s.policy) == 0 {
		return usageError{fmt.Errorf("%s: --subscription-type goes with --policy: the daemon's is in its configuration", verb)}
	}
	return nil
}

// templates is what templates are evaluated with.
func (s *source) templates() arm.Deployment {
	d := s.deployment
	if s.of != nil {
		d.ResourceGroup = s.of.group
	}
	return d
}
