package main

import (
	"strings"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/spf13/cobra"
)

// complete completes the values of a flag. Files stay out of the way.
func complete(c *cobra.Command, flag string, values func(*cobra.Command) []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		var list []string
		for _, v := range values(c) {
			if len(v) >= len(begun) && strings.EqualFold(v[:len(begun)], begun) {
				list = append(list, v)
			}
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the command has no such flag, or completes it already
	}
}

func words(list ...string) func(*cobra.Command) []string {
	return func(*cobra.Command) []string { return list }
}

// completed answers for a completion, which is silent about errors.
func completed[T any](s *source, g *global, daemon func(*control.Client) (T, error), files func(*inspect.Loaded) []string, names func(T) []string) []string {
	if len(s.policy) > 0 {
		list, _ := answerFrom(s, func(p *inspect.Loaded) ([]string, error) { return files(p), nil })
		return list
	}
	result, err := daemon(control.NewClient(g.socket))
	if err != nil {
		return nil
	}
	return names(result)
}

// interfaceNames are the NICs of the policy files, or those that the daemon has attached.
func interfaceNames(s *source, g *global) func(*cobra.Command) []string {
	return func(c *cobra.Command) []string {
		return completed(s, g, func(d *control.Client) (*inspect.Status, error) { return d.Status(c.Context()) },
			func(p *inspect.Loaded) (names []string) {
				for _, nic := range p.Snapshot.Policy.NetworkInterfaces {
					names = append(names, nic.Name)
				}
				return names
			},
			func(status *inspect.Status) (names []string) {
				for i := range status.Attachments {
					if a := &status.Attachments[i]; a.Kind == topology.NetworkInterface.String() {
						names = append(names, a.Name)
					}
				}
				return names
			})
	}
}

// groupNames are the NSGs of the policy files or of the daemon.
func groupNames(s *source, g *global) func(*cobra.Command) []string {
	distinct := func(list *inspect.RuleList) (names []string) {
		for i := range list.Rules {
			if name := list.Rules[i].NetworkSecurityGroup; len(names) == 0 || names[len(names)-1] != name {
				names = append(names, name)
			}
		}
		return names
	}
	return func(c *cobra.Command) []string {
		return completed(s, g, func(d *control.Client) (*inspect.RuleList, error) { return d.Rules(c.Context(), inspect.RuleFilter{}) },
			func(p *inspect.Loaded) []string {
				list, _ := inspect.Rules(p.Snapshot, nil, inspect.RuleFilter{}) // fails for no filter
				return distinct(list)
			}, distinct)
	}
}
