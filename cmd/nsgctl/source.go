package main

import (
	"fmt"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/spf13/cobra"
)

// source are the flags of verbs that can do without a daemon.
type source struct {
	// of is what the verb asks about; nil when it has no such flags. Its resource group is that
	// of templates too. Add its flags first.
	of *target

	policy      []string
	serviceTags string
	azureQuirks bool
	outbound    string // address of default outbound access
	// internetPrefixes and reachPrivate are prefixes and reachPrivate of the internet's attachment.
	internetPrefixes []string
	reachPrivate     bool
	deployment       arm.Deployment
	command          *cobra.Command

	subscription topology.Subscription // of verbs that judge
	// emptyTags: tags that no file gives stand for no address.
	emptyTags bool
}

func (s *source) flags(c *cobra.Command, g *global) {
	c.Flags().StringArrayVar(&s.policy, "policy", nil, "answer from this file or folder of ARM JSON instead of the daemon; more may follow as arguments")
	c.Flags().StringVar(&s.serviceTags, "service-tags", "", "with --policy: Microsoft's service tag file, for the tags that it names")
	c.Flags().StringVar(&s.outbound, "default-outbound-address", "", "with --policy: the public address of default outbound access, as defaultOutboundAddress of the daemon")
	s.policyFlags(c)
	completeNames(c, s, g)
}

// policyFlags adds the flags that say how a policy is understood.
func (s *source) policyFlags(c *cobra.Command) {
	c.Flags().BoolVar(&s.azureQuirks, "azure-quirks", false, "with --policy: imitate what Azure does against its documents, as azureQuirks of the daemon")
	c.Flags().StringSliceVar(&s.internetPrefixes, "internet-prefixes", nil, "with --policy: networks that the internet sends from besides public addresses, as prefixes of the daemon's internet attachment")
	c.Flags().BoolVar(&s.reachPrivate, "reach-private", false, "with --policy: the internet reaches private addresses though the policy has public ones, as reachPrivate of the daemon's internet attachment")
	addDeployment(c, &s.deployment)
	s.command = c
}

// args takes the further paths after --policy PATH.
func (s *source) args(c *cobra.Command, args []string) error {
	if len(s.policy) == 0 {
		return noArgs(c, args)
	}
	s.policy = append(s.policy, args...)
	return existing(c, "", args)
}

// answer asks the policy files that the flags name, or else the daemon.
func answer[T any](s *source, g *global, daemon func(*control.Client) (T, error), files func(*inspect.Loaded) (T, error)) (none T, err error) {
	if len(s.policy) > 0 {
		return answerFrom(s, files)
	}
	if err := s.checkDaemon(); err != nil {
		return none, err
	}
	return daemon(g.client())
}

// answerFrom asks the policy files that the flags name.
func answerFrom[T any](s *source, files func(*inspect.Loaded) (T, error)) (none T, err error) {
	loaded, err := s.open()
	if err != nil {
		return none, err
	}
	return files(loaded)
}

// checkDaemon refuses flags that only policy files have.
func (s *source) checkDaemon() error {
	for _, name := range deploymentFlags {
		if s.command.Flags().Changed(name) && (s.of == nil || name != groupFlag) {
			return usageError{fmt.Errorf("--%s goes with --policy: the daemon's templates are evaluated as its configuration says", name)}
		}
	}
	for _, f := range []struct {
		name  string
		given bool
		what  string
	}{{"azure-quirks", s.azureQuirks, "setting"}, {"default-outbound-address", s.outbound != "", "setting"},
		{"internet-prefixes", len(s.internetPrefixes) > 0, "setting"}, {"reach-private", s.reachPrivate, "setting"}, {"service-tags", s.serviceTags != "", "service tag file"}} {
		if f.given {
			return usageError{fmt.Errorf("--%s goes with --policy: the daemon's %s is in its configuration", f.name, f.what)}
		}
	}
	return nil
}

// topology is how the flags want the policy to be understood.
func (s *source) topology() (topology.Options, error) {
	options := topology.Options{AzureQuirks: s.azureQuirks, ReachPrivate: s.reachPrivate}
	if s.outbound != "" {
		a, err := netip.ParseAddr(s.outbound)
		if err != nil || !a.Is4() {
			return options, usageError{fmt.Errorf("--default-outbound-address %q: allowed is an IPv4 address", s.outbound)}
		}
		options.DefaultOutbound = a
	}
	for _, text := range s.internetPrefixes {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return options, usageError{fmt.Errorf("--internet-prefixes %q: allowed is a network with a prefix length such as 172.16.0.0/12", text)}
		}
		options.Outside = append(options.Outside, p)
	}
	return options, nil
}

func (s *source) open() (*inspect.Loaded, error) {
	loaded, leftOut, err := s.load()
	s.warnLeftOut(leftOut)
	return loaded, err
}

// load reads the policy files, for a verb that tells itself what is left out of them.
func (s *source) load() (loaded *inspect.Loaded, leftOut ruleset.Faults, err error) {
	options, err := s.topology()
	if err != nil {
		return nil, nil, err
	}
	files := s.files()
	if s.emptyTags {
		files.KeepUnknownTags()
	}
	if loaded, err = files.Open(options); err != nil {
		return nil, nil, err
	}
	loaded.Snapshot.BlockSMTP = s.subscription.BlocksSMTP()
	return loaded, files.LeftOut(), nil
}

// files are the policy files, with what their templates are evaluated with.
func (s *source) files() *inspect.PolicyFiles {
	d := s.deployment
	d.Context = s.command.Context()
	if s.of != nil {
		d.ResourceGroup = s.of.group
	}
	files := inspect.NewPolicyFiles(arm.DefaultServiceTags(s.serviceTags), s.policy...)
	files.SetDeployment(d)
	return files
}

// warnLeftOut lists what --allow-partial leaves out of a policy.
func (s *source) warnLeftOut(faults ruleset.Faults) {
	for i := range faults {
		fmt.Fprintf(s.command.ErrOrStderr(), "warning: left out: %s\n", printable(faults[i].Error()))
	}
}

// subscriptionFlags adds the flags that decide about TCP port 25.
func (s *source) subscriptionFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&s.subscription.Type, "subscription-type", "", "with --policy: enterprise, payg, msdn or csp, which decides about TCP port 25 to the internet; enterprise when absent")
	complete(c, "subscription-type", words("enterprise", "payg", "msdn", "csp"))
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

// deploymentFlags are the flags of verbs that read ARM templates.
var deploymentFlags = []string{parametersFlag, "subscription", groupFlag, "location", "runtime", "allow-partial", "template-timeout"}

// groupFlag names the resource group. Verbs that ask about a resource add it before addDeployment.
const groupFlag = "resource-group"

// addDeployment adds the flags that say what templates are evaluated with.
func addDeployment(c *cobra.Command, d *arm.Deployment) {
	f := c.Flags()
	f.StringArrayVar(&d.Parameters, parametersFlag, nil, "parameters of ARM templates: a parameters file or NAME=VALUE; may be repeated, the last one holds")
	f.StringVar(&d.Subscription, "subscription", "", "id of the subscription that templates are for (default zeros)")
	if f.Lookup(groupFlag) == nil {
		f.StringVar(&d.ResourceGroup, groupFlag, "", `name of the resource group that templates are for (default "nsgd")`)
	}
	f.StringVar(&d.Location, "location", "", `location of that resource group (default "westeurope")`)
	f.StringVar(&d.Runtime, "runtime", "", "JSON file of what only Azure knows: resources as Azure answers for them, by id or name")
	f.DurationVar(&d.Timeout, "template-timeout", template.DefaultTimeout, "how long the templates of a policy may take together")
	f.BoolVar(&d.Partial, "allow-partial", false, "leave out what can't be evaluated, with a warning, instead of refusing the policy")
}
