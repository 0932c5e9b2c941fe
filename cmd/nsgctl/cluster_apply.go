//go:build !nocluster

package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// applyFlags say how carefully to apply.
type applyFlags struct {
	canary         []string
	maxUnavailable int
	wait           time.Duration
	message, sign  string
	keep           int
}

// The bounds of --wait.
const minWait, maxWait = time.Second, time.Hour

func (f *applyFlags) flags(c *cobra.Command) {
	p := c.Flags()
	p.StringSliceVar(&f.canary, "canary", nil, "hosts that carry the generation before it becomes current")
	p.IntVar(&f.maxUnavailable, "max-unavailable", 0, "go on although so many hosts have not answered at the end of --wait; a host that refuses always stops it")
	p.DurationVar(&f.wait, "wait", time.Minute, "how long hosts may take to prepare, and again to carry")
	p.StringVar(&f.message, "message", "", "what the history says of it")
	p.StringVar(&f.sign, "sign", "", "file with the ed25519 key to sign with, in PEM")
	p.IntVar(&f.keep, "keep", cluster.DefaultKept, "how many generations stay in the history")
}

// options are the flags' for a store.
func (f *applyFlags) options(c *cobra.Command) (*cluster.ApplyOptions, error) {
	switch {
	case f.wait < minWait || f.wait > maxWait:
		return nil, usageError{fmt.Errorf("%s: --wait %v: allowed are %v to %v", verbName(c), f.wait, minWait, maxWait)}
	case f.maxUnavailable < 0:
		return nil, usageError{fmt.Errorf("%s: --max-unavailable %d: allowed are 0 and more", verbName(c), f.maxUnavailable)}
	case f.keep < cluster.MinKept || f.keep > cluster.MaxKept:
		return nil, usageError{fmt.Errorf("%s: --keep %d: allowed are %d to %d", verbName(c), f.keep, cluster.MinKept, cluster.MaxKept)}
	case len(f.message) > generation.MaxMessage:
		return nil, usageError{fmt.Errorf("%s: --message: %d bytes: at most %d", verbName(c), len(f.message), generation.MaxMessage)}
	}
	for _, host := range f.canary {
		if err := cluster.CheckHost(host); err != nil {
			return nil, usageError{fmt.Errorf("%s: --canary: %w", verbName(c), err)}
		}
	}
	var key ed25519.PrivateKey
	if f.sign != "" {
		text, err := os.ReadFile(f.sign)
		if err == nil {
			key, err = generation.ParsePrivateKey(text)
		}
		if err != nil {
			return nil, fmt.Errorf("--sign: %s: %w", f.sign, err)
		}
	}
	return &cluster.ApplyOptions{
		Who: me(), Version: version, Message: f.message, Key: key, Canary: f.canary, MaxUnavailable: f.maxUnavailable, Wait: f.wait, Kept: f.keep, Now: time.Now,
		Progress: func(line string) { fmt.Fprintln(c.ErrOrStderr(), printable(line)) },
	}, nil
}

func newClusterApply(g *global, f *clusterFlags) *cobra.Command {
	var how applyFlags
	what := &clusterPolicy{}
	c := &cobra.Command{
		Use:   "apply PATH... [--service-tags FILE] [--canary HOSTS] [--max-unavailable N] [--wait TIME] [--message TEXT] [--sign KEY]",
		Short: "Validate a policy and have every host of the cluster carry it",
		Long: `Validate a policy and have every host of the cluster carry it.

The files are read as nsgd reads them, and written to etcd with all that they are read with. Every host that lives tries
the generation. When all could carry it, it becomes the current one, and apply waits until they carry it. When a host
refuses, or the wait runs out, nothing changes: the error says which host and why. Hosts that come later carry what is
current. A policy that is current already is not written again.

Exit code 1: it is refused, or it is current and hosts don't carry it at the end of --wait.`,
		Example: `  nsgctl cluster apply policy --service-tags ServiceTags_Public.json --message "web tier on 443"
  nsgctl cluster apply policy --canary host1 --max-unavailable 1 --wait 2m`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("cluster apply: at least one file or folder is needed")}
			}
			return existing(c, "", args)
		},
		RunE: func(c *cobra.Command, paths []string) error {
			o, err := how.options(c)
			if err != nil {
				return err
			}
			if o.Packed, err = what.pack(c, paths); err != nil {
				return err
			}
			return apply(c, g, f, o)
		},
	}
	what.flags(c)
	how.flags(c)
	return c
}

func newClusterRollback(g *global, f *clusterFlags) *cobra.Command {
	var how applyFlags
	c := &cobra.Command{
		Use:   "rollback [N] [--canary HOSTS] [--max-unavailable N] [--wait TIME] [--message TEXT] [--sign KEY]",
		Short: "Apply the policy of an earlier generation again, as a new one",
		Long: `Apply the policy of an earlier generation again, as a new one. Without N it is the one before the current one. All is as
with apply.`,
		Example: `  nsgctl cluster rollback
  nsgctl cluster rollback 12 --message "443 was too much"`,
		Args: atMost(1, "one, the generation's number"),
		RunE: func(c *cobra.Command, args []string) error {
			o, err := how.options(c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				if o.RollbackTo, err = parseNumber(c, args[0]); err != nil {
					return err
				}
			} else if o.RollbackTo, err = withStore(c, f, func(s *cluster.Store) (uint64, error) { n, _, err := lastTwo(c, s); return n, err }); err != nil {
				return err
			}
			if o.Message == "" {
				o.Message = fmt.Sprintf("rollback to generation %d", o.RollbackTo)
			}
			return apply(c, g, f, o)
		},
	}
	how.flags(c)
	return c
}

// apply applies and shows what came of it.
func apply(c *cobra.Command, g *global, f *clusterFlags, o *cluster.ApplyOptions) error {
	applied, err := withStore(c, f, func(s *cluster.Store) (*cluster.Applied, error) { return s.Apply(c.Context(), o) })
	if err := show(c, g, applied, err, appliedTable); err != nil {
		return err
	}
	if len(applied.Missing) > 0 {
		return errNegative
	}
	return nil
}

func appliedTable(w io.Writer, a *cluster.Applied) error {
	state := "current"
	if a.Unchanged {
		state = "current already, with this policy: nothing was written"
	}
	fmt.Fprintf(w, "generation %d: %s\n", a.Generation, state)
	if len(a.Hosts) > 0 {
		fmt.Fprintf(w, "carried by %s: %s\n", plural(len(a.Hosts), "host"), printable(strings.Join(a.Hosts, ", ")))
	}
	for _, m := range a.Missing {
		fmt.Fprintf(w, "not carried: %s\n", printable(m))
	}
	return nil
}

// clusterPolicy are the flags that say how the policy of a cluster is read.
type clusterPolicy struct {
	serviceTags, outbound string
	quirks                bool
	subscription          topology.Subscription
	deployment            arm.Deployment
}

func (p *clusterPolicy) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	f.BoolVar(&p.quirks, "azure-quirks", false, "imitate what Azure does against its documents")
	f.StringVar(&p.outbound, "default-outbound-address", "", "the public address of default outbound access")
	f.StringVar(&p.subscription.Type, "subscription-type", "", "enterprise, payg, msdn or csp, which decides about TCP port 25 to the internet; enterprise when absent")
	f.BoolVar(&p.subscription.CreatedBefore20171115, "created-before-20171115", false, "with --subscription-type payg or csp: created before 15 November 2017")
	f.BoolVar(&p.subscription.SMTPExempt, "smtp-exempt", false, "with --subscription-type payg or csp: exempted from the block of port 25")
	complete(c, "subscription-type", words("enterprise", "payg", "msdn", "csp"))
	addDeployment(c, &p.deployment)
}

// pack reads a policy, packs it, and reads what hosts would unpack: what is written is what was validated.
func (p *clusterPolicy) pack(c *cobra.Command, paths []string) (*generation.Packed, error) {
	b := &generation.Bundle{Settings: generation.Settings{
		AllowPartial: p.deployment.Partial, AzureQuirks: p.quirks,
		Platform:  generation.Platform{Subscription: p.subscription.Type, CreatedBefore20171115: p.subscription.CreatedBefore20171115, SMTPExempt: p.subscription.SMTPExempt},
		Templates: generation.Templates{Subscription: p.deployment.Subscription, ResourceGroup: p.deployment.ResourceGroup, Location: p.deployment.Location},
	}}
	if c.Flags().Changed("template-timeout") {
		b.Settings.Templates.Timeout = p.deployment.Timeout
	}
	if _, err := p.subscription.Check(); err != nil {
		return nil, usageError{fmt.Errorf("cluster apply: --subscription-type: %w", err)}
	}
	if p.outbound != "" {
		a, err := netip.ParseAddr(p.outbound)
		if err != nil || !a.Is4() || !a.IsGlobalUnicast() {
			return nil, usageError{fmt.Errorf("cluster apply: --default-outbound-address %q: allowed is an IPv4 address that a host can have", p.outbound)}
		}
		b.Settings.DefaultOutboundAddress = a
	}
	tags := arm.DefaultServiceTags(p.serviceTags)
	p.deployment.Context = c.Context()
	files := inspect.NewPolicyFiles(tags, paths...)
	files.SetDeployment(p.deployment)
	if _, err := files.Load(); err != nil {
		return nil, err
	}
	err := b.Gather(&generation.Sources{Policy: paths, ServiceTags: tags, Runtime: p.deployment.Runtime, Parameters: p.deployment.Parameters, IsValue: arm.IsAssignment, Read: files.Taken()})
	if err != nil {
		return nil, err
	}
	packed, err := b.Pack()
	if err != nil {
		return nil, err
	}
	m := &generation.Manifest{Number: 1}
	m.Describe(packed)
	loaded, err := openBundle(c, m, packed.Compressed)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c.ErrOrStderr(), "valid: %s, %s\n", plural(len(b.Files), "file"), inspect.CountPolicy(loaded.Snapshot.Policy))
	return packed, nil
}

// openBundle reads a generation's policy as a host does.
func openBundle(c *cobra.Command, m *generation.Manifest, compressed []byte) (*inspect.Loaded, error) {
	dir, err := os.MkdirTemp("", "nsgctl-cluster-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	sealed, err := m.Seal(nil)
	if err != nil {
		return nil, err
	}
	cache, err := generation.OpenCache(dir, nil)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	u, err := cache.Put(sealed, compressed)
	if err != nil {
		return nil, err
	}
	s := u.Located()
	d := arm.Deployment{Subscription: s.Templates.Subscription, ResourceGroup: s.Templates.ResourceGroup, Location: s.Templates.Location,
		Runtime: s.Templates.Runtime, Partial: s.AllowPartial, Timeout: s.Templates.Timeout, Context: c.Context()}
	for _, one := range s.Templates.Parameters {
		d.Parameters = append(d.Parameters, one.File+one.Value)
	}
	files := inspect.NewPolicyFiles(s.ServiceTags, s.Policy...)
	files.SetDeployment(d)
	loaded, err := files.Open(topology.Options{AzureQuirks: s.AzureQuirks, DefaultOutbound: s.DefaultOutboundAddress})
	if err != nil {
		return nil, err
	}
	subscription := topology.Subscription{Type: s.Platform.Subscription, CreatedBefore20171115: s.Platform.CreatedBefore20171115, SMTPExempt: s.Platform.SMTPExempt}
	if _, err := subscription.Check(); err != nil {
		return nil, err
	}
	loaded.Snapshot.BlockSMTP = subscription.BlocksSMTP()
	return loaded, nil
}
