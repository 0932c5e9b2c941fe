package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// diffFlags are the flags of diff.
type diffFlags struct {
	git       string
	plan      string
	running   bool
	limit     int
	failOn    string
	maxStates int
	from      source
}

// The values of --fail-on.
const (
	failWidened  = "widened"
	failNarrowed = "narrowed"
	failAny      = "any"
)

func init() { addVerb(newDiff) }

func newDiff(g *global) *cobra.Command {
	var f diffFlags
	c := &cobra.Command{
		Use:         "diff OLD NEW | --git REF PATH... | --terraform-plan F [PATH...] | --running [PATH...]",
		Short:       "Say what a change of a policy newly allows and denies, for all packets",
		Annotations: map[string]string{moreFormats: diffFormats},
		Long: `Say what a change of a policy newly allows and denies, for all packets.

OLD and NEW are files or folders of ARM JSON, templates or Terraform plans. With --git, the files of
PATH... as they are now are compared with those of a commit, branch or tag of the repository. With
--terraform-plan, what a plan leads to is compared with the state that it begins from; PATH... are documents
that belong to both. What Terraform knows only after apply is listed, and groups with such rules are not decided.

With --running, the policy of the running daemon is compared with PATH..., or with its own files as they are now,
which is what reload would change. The daemon reads the files, with its own settings. The answer tells which live
flows the new policy would end too: at once, or with their next packet. Nothing changes.

For every network interface, subnet and unused network security group whose answer changed: the packets,
the rules that decided before and now, and one packet that shows it, which verify confirms. Those that
change alike are told together. Admin rules, network security groups, the platform's services and public
addresses that are closed without a group are judged, and ways from the internet that only one policy has.
Routes and outbound translation are not.

Between two ends that the policy has, the whole path is asked too: what of a change gets through (passes), and what
the other end or the way stops (blocked).

With --fail-on the exit code is 1 when packets are newly allowed (widened), newly denied (narrowed) or
either (any), when there are new ends (widened) or ends that are gone (narrowed), and when something could not be decided.`,
		Example: `  nsgctl diff policy-before policy
  nsgctl diff --git origin/main policy -o markdown --fail-on widened
  nsgctl diff --terraform-plan plan.json`,
		Args: func(c *cobra.Command, args []string) error { return f.args(c, args) },
		RunE: func(c *cobra.Command, paths []string) error { return f.run(c, g, paths) },
	}
	c.Flags().StringVar(&f.git, "git", "", "compare with the files of this commit, branch or tag")
	c.Flags().StringVar(&f.plan, "terraform-plan", "", `compare what this plan of Terraform leads to with what is there; F is what "terraform show -json" prints`)
	c.Flags().BoolVar(&f.running, "running", false, "compare the running daemon's policy with files, or with its own files as they are now")
	c.Flags().IntVar(&f.limit, "limit", inspect.DefaultCutLimit, "with --running: list so many of the live flows that would end")
	c.Flags().StringVar(&f.failOn, "fail-on", "", "exit with 1 when the policy is widened, narrowed, or either (any)")
	c.Flags().IntVar(&f.maxStates, "max-states", 0, "bound on the work for each endpoint and direction (default 500000); what it leaves is listed as not decided")
	c.Flags().StringVar(&f.from.serviceTags, "service-tags", "", "Microsoft's service tag file, for the tags that rules name")
	complete(c, "fail-on", words(failWidened, failNarrowed, failAny))
	f.from.policyFlags(c)
	return c
}

func (f *diffFlags) args(c *cobra.Command, paths []string) error {
	switch {
	case f.failOn != "" && !slices.Contains([]string{failWidened, failNarrowed, failAny}, f.failOn):
		return usageError{fmt.Errorf("diff: --fail-on %q: allowed are %s, %s and %s", f.failOn, failWidened, failNarrowed, failAny)}
	case f.maxStates < 0:
		return usageError{fmt.Errorf("diff: --max-states %d: allowed are numbers above 0", f.maxStates)}
	case f.git != "" && f.plan != "", f.running && f.git+f.plan != "":
		return usageError{errors.New("diff: --git, --terraform-plan and --running exclude each other")}
	case f.limit < 1 || f.limit > inspect.MaxFlowLimit:
		return usageError{fmt.Errorf("diff: --limit %d: allowed are 1 to %d", f.limit, inspect.MaxFlowLimit)}
	case f.running:
		return f.from.checkDaemon()
	case f.plan != "": // which is looked for with the flags
	case f.git != "" && len(paths) == 0:
		return usageError{errors.New("diff: --git needs at least one file or folder")}
	case f.git == "" && len(paths) != 2:
		return usageError{fmt.Errorf("diff: two files or folders are needed, the old and the new one; given are %d", len(paths))}
	}
	return existing(c, "", paths)
}

func (f *diffFlags) run(c *cobra.Command, g *global, paths []string) error {
	result, err := f.compare(c, g, paths)
	if err != nil {
		return refused(c, g, err)
	}
	if g.output == outputMarkdown {
		err = diffMarkdown(c.OutOrStdout(), result)
	} else {
		err = showReport(c, g, result, diffTable, f.entries)
	}
	if err != nil {
		return err
	}
	if f.fails(result.DiffResult) {
		return errNegative
	}
	return nil
}

// compare asks the daemon, or reads both policies.
func (f *diffFlags) compare(c *cobra.Command, g *global, paths []string) (*inspect.RunningDiff, error) {
	if f.running {
		if err := g.localPaths(c, paths); err != nil {
			return nil, err
		}
		q := &inspect.RunningQuestion{MaxStates: f.maxStates, Limit: f.limit}
		for _, path := range paths {
			absolute, err := filepath.Abs(path)
			if err != nil {
				return nil, err
			}
			q.Policy = append(q.Policy, absolute)
		}
		return g.client().Diff(c.Context(), q)
	}
	old, new, err := f.load(c, paths)
	if err != nil {
		return nil, err
	}
	return interruptible(c.Context(), func() (*inspect.RunningDiff, error) {
		return &inspect.RunningDiff{DiffResult: inspect.Diff(old, new, f.maxStates)}, nil
	})
}

// load reads both policies.
func (f *diffFlags) load(c *cobra.Command, paths []string) (old, new *inspect.Loaded, err error) {
	switch {
	case f.plan != "":
		return f.loadPlan(paths)
	case f.git == "":
		if old, err = f.open(paths[:1]); err != nil {
			return nil, nil, err
		}
		new, err = f.open(paths[1:])
		return old, new, err
	}
	tree, err := checkOut(c.Context(), f.git, paths)
	if err != nil {
		return nil, nil, err
	}
	defer tree.remove()
	if old, err = f.open(tree.paths); err != nil {
		return nil, nil, tree.namedIn(err)
	}
	new, err = f.open(paths)
	return old, new, err
}

// loadPlan reads both sides of a plan. What Terraform does not know yet is left out, and named in the result.
func (f *diffFlags) loadPlan(paths []string) (old, new *inspect.Loaded, err error) {
	paths = append([]string{f.plan}, paths...)
	f.from.deployment.Partial, f.from.deployment.PriorOf = true, f.plan
	if old, err = f.open(paths); err != nil {
		return nil, nil, err
	}
	f.from.deployment.PriorOf = ""
	new, err = f.open(paths)
	return old, new, err
}

func (f *diffFlags) open(paths []string) (*inspect.Loaded, error) {
	from := f.from
	from.policy = paths
	return interruptible(from.command.Context(), func() (*inspect.Loaded, error) {
		loaded, _, err := from.load() // the result tells what is left out
		return loaded, err
	})
}

// failingKinds are the kinds of changes that --fail-on is about.
var failingKinds = map[string][]string{failWidened: {ask.DiffAllowed}, failNarrowed: {ask.DiffDenied}, failAny: {ask.DiffAllowed, ask.DiffDenied}}

// fails reports what --fail-on asks for.
func (f *diffFlags) fails(r *ask.DiffResult) bool {
	found := slices.ContainsFunc(r.Changes, func(c ask.DiffChange) bool { return slices.Contains(failingKinds[f.failOn], c.Kind) })
	// What only one side has is compared with nothing: all that it allows is new, or gone.
	appears, goes := len(r.Added) > 0 && f.failOn != failNarrowed, len(r.Removed) > 0 && f.failOn != failWidened
	return found || f.failOn != "" && (appears || goes || len(r.Undecided)+len(r.Open) > 0)
}
