package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/spf13/cobra"
)

func newCheck() *cobra.Command {
	var path string
	var running, anywhere bool
	c := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration and its policy, without root and without starting anything",
		Long: `Check a configuration and its policy, without root and without starting anything.

What nsgd run would refuse on this host is a fault too: namespaces and interfaces that are not there, names of devices and
ports that are taken, folders that others may write to. What only root may see is left out. While a daemon runs, ports
are its own and not tried.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{errors.New("check: --config is missing")}
			}
			all, err := loadAll(c.Context(), path)
			if err != nil {
				return err
			}
			if !anywhere {
				if err := checkHost(path, all.config, isRunning(all.config.Control.Socket)); err != nil {
					return err
				}
			}
			for _, left := range all.files.LeftOut() {
				fmt.Fprintf(c.ErrOrStderr(), "warning: left out of the policy: %v\n", left)
			}
			for _, warning := range all.warnings {
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", warning)
			}
			fmt.Fprintf(c.OutOrStdout(), "ok: %s\n", inspect.CountPolicy(all.policy))
			if running {
				return againstRunning(c, path, all.config.Control.Socket)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&anywhere, "anywhere", false, "leave out what only the host can tell that nsgd is to run on: namespaces, interfaces, ports, folders")
	c.Flags().BoolVar(&running, "against-running", false, "also ask the daemon that runs what a reload would change, or why it would refuse")
	c.Flags().StringVar(&path, "config", "", "configuration file")
	return c
}

// againstRunning asks the daemon on a socket what a reload of a configuration would change.
func againstRunning(c *cobra.Command, path, socket string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	client := control.NewClient(socket)
	defer client.Close()
	changes, err := client.Check(c.Context(), &control.CheckParameters{Configuration: path})
	switch {
	case errors.Is(err, control.ErrNoDaemon):
		return err
	case err != nil:
		return fmt.Errorf("a reload would be refused: %w", err)
	}
	words := "no attachment changes"
	if changes.Any() {
		words = changes.String()
	}
	fmt.Fprintf(c.OutOrStdout(), "a reload would succeed: %s\n", words)
	return nil
}

// loaded is a configuration with its policy; they fit.
type loaded struct {
	begun time.Time // of the reading
	// config is the file's, without the network interfaces that the cluster has not given to this host.
	config   *Config
	file     *Config
	share    *share
	files    *inspect.PolicyFiles
	policy   *policy.Set
	snapshot *topology.Snapshot
	warnings []string // of what is valid and seldom meant
}

// loadPolicy loads a configuration and its policy. ctx ends the evaluation of templates.
// Where it names the files of an earlier one, these are read again, and only what has changed; other files follow those; was may
// be nil. With was.policy they can't have changed, and are not read.
// shared is what the cluster gives, if the configuration has one.
func loadPolicy(ctx context.Context, path string, was *loaded, shared *share) (*loaded, error) {
	begun := time.Now()
	config, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	return config.load(ctx, begun, was, shared)
}

// load is loadPolicy for a configuration that was read already. It belongs to the result then.
func (c *Config) load(ctx context.Context, begun time.Time, was *loaded, shared *share) (*loaded, error) {
	config := c
	if config.Cluster != nil {
		if err := config.take(shared); err != nil {
			return nil, err
		}
	}
	var files *inspect.PolicyFiles
	var set *policy.Set
	if was != nil && config.readsAs(was.file) {
		files, set = was.files, was.policy
	} else {
		files = inspect.NewPolicyFiles(config.ServiceTags, config.Policy...)
		if was != nil {
			files = was.files.Following(config.ServiceTags, config.Policy...)
		}
		deployment := config.deployment()
		deployment.Context = ctx
		files.SetDeployment(deployment)
	}
	if set == nil {
		var err error
		if set, err = files.Load(); err != nil {
			return nil, err
		}
	}
	return &loaded{begun: begun, config: config.having(shared, set), file: config, share: shared, files: files, policy: set, warnings: append(files.Warnings(), config.warnings()...)}, nil
}

// readsAs reports that the policy of two configurations is read from the same files in the same way.
func (c *Config) readsAs(other *Config) bool {
	return c.ServiceTags == other.ServiceTags && slices.Equal(c.Policy, other.Policy) && c.AllowPartial == other.AllowPartial &&
		reflect.DeepEqual(c.Templates, other.Templates)
}

// loadAll loads a configuration and its policy and finds out whether they fit.
func loadAll(ctx context.Context, path string) (*loaded, error) {
	shared, trouble, err := lastShare(path)
	if err != nil {
		return nil, err
	}
	all, err := loadPolicy(ctx, path, nil, shared)
	if err != nil {
		return nil, err
	}
	if trouble != nil {
		all.warnings = append(all.warnings, trouble.Error())
	}
	all.snapshot, err = all.config.topology().Build(all.policy, all.config.specs(), topology.NewRegistry())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := planDevices(all.config, all.policy, all.snapshot.Attachments); err != nil {
		return nil, err
	}
	if _, err := all.config.Control.access(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := all.config.Control.checkTLS(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if file := all.config.Metrics.WebConfig; file != "" {
		if err := serve.CheckWeb(file); err != nil {
			return nil, fmt.Errorf("%s: metrics.webConfig: %w", path, err)
		}
	}
	if all.file.Cluster != nil && all.share.generation == nil {
		return all, nil // flow logs of what is not there yet
	}
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
	if c.joined != nil {
		o.Host, o.InternetShare = c.joined.host, c.joined.share
	}
	return o
}

// warnings are about what the configuration says and few mean.
func (c *Config) warnings() (list []string) {
	var late []string
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if a.Interface != "" && a.Wait && !c.ClosedAtBoot {
			late = append(late, a.Interface)
		}
		for j, p := range a.Prefixes {
			if p.Bits() == 0 && a.Gateway != "" {
				list = append(list, fmt.Sprintf("attachments[%d].prefixes[%d]: %s: wherever this is learned the tag VirtualNetwork stands for every address of this family: AllowVnetInBound and AllowVnetOutBound allow everything there, and Internet stands for nothing", i, j, p))
			}
		}
	}
	if len(late) > 0 {
		list = append(list, fmt.Sprintf("interfaces that come while no nsgd runs are open until it starts: %s: closedAtBoot: true closes them", strings.Join(late, " ")))
	}
	return list
}

// specs are the attachments as the topology wants them.
func (c *Config) specs() []topology.Spec {
	specs := make([]topology.Spec, len(c.Attachments))
	for i := range c.Attachments {
		specs[i] = c.Attachments[i].spec()
	}
	return specs
}

func (a *AttachmentConfig) spec() (s topology.Spec) {
	switch {
	case a.fabric != nil:
		return *a.fabric
	case a.NetworkInterface != "":
		return topology.Spec{Kind: topology.NetworkInterface, Reference: a.NetworkInterface}
	case a.Subnet != "":
		return topology.Spec{Kind: topology.Subnet, Reference: a.Subnet}
	case a.Internet:
		return topology.Spec{Kind: topology.Internet}
	case a.Gateway != "":
		s = topology.Spec{Kind: topology.Gateway, Reference: a.Gateway}
		for _, p := range a.Prefixes {
			s.Prefixes = append(s.Prefixes, p.Prefix)
		}
		return s
	}
	return topology.Spec{Kind: topology.Platform}
}
