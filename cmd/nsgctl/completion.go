package main

import (
	"strings"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// complete completes the values of a flag. Files stay out of the way.
func complete(c *cobra.Command, flag string, values func(*cobra.Command) []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		return beginning(values(c), begun), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the command has no such flag, or completes it already
	}
}

// beginning are the words that begin with a text, in any case.
func beginning(words []string, begun string) (list []string) {
	for _, word := range words {
		if len(word) >= len(begun) && strings.EqualFold(word[:len(begun)], begun) {
			list = append(list, word)
		}
	}
	return list
}

func words(list ...string) func(*cobra.Command) []string {
	return func(*cobra.Command) []string { return list }
}

// policyNames are the names in the policy files of a command line, or in the daemon's policy. Errors give
// none: a completion is silent.
func policyNames(c *cobra.Command, s *source, g *global) *inspect.Names {
	if len(s.policy) > 0 {
		set, err := s.files().Load()
		if err != nil {
			return &inspect.Names{}
		}
		return inspect.PolicyNames(set)
	}
	client := g.client()
	defer client.Close()
	names, err := client.Names(c.Context())
	if err != nil {
		return &inspect.Names{}
	}
	return names
}

// namedFlags are flags for names of resources, in every verb that has them.
var namedFlags = map[string]func(*inspect.Names) []string{
	"nic":      func(n *inspect.Names) []string { return n.NetworkInterfaces },
	"name":     func(n *inspect.Names) []string { return n.NetworkInterfaces },
	"vm":       func(n *inspect.Names) []string { return n.VirtualMachines },
	"resource": func(n *inspect.Names) []string { return append(n.NetworkInterfaces, n.VirtualMachines...) },
	"subnet":   func(n *inspect.Names) []string { return n.Subnets },
	"nsg":      func(n *inspect.Names) []string { return n.NetworkSecurityGroups },
	"asg":      func(n *inspect.Names) []string { return n.ApplicationSecurityGroups },
}

// completeNames completes the flags of a verb that are for names. Add them first.
func completeNames(c *cobra.Command, s *source, g *global) {
	for flag, of := range namedFlags {
		if c.Flags().Lookup(flag) != nil {
			complete(c, flag, func(c *cobra.Command) []string { return of(policyNames(c, s, g)) })
		}
	}
}

// filterWords completes a filter of trace and capture: the names behind nic and nsg, and the words of filters.
func filterWords(g *global) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		last := ""
		if len(args) > 0 {
			last = args[len(args)-1]
		}
		list := strings.Fields("and or not src dst host net port portrange tcp udp icmp icmp6 ip ip6 proto nic nsg rule verdict reason flow")
		switch last {
		case "nic", "nsg":
			list = namedFlags[last](policyNames(c, &source{}, g))
		case "verdict":
			list = []string{"allow", "deny"}
		case "flow":
			list = []string{"new", "live", "related", "none"}
		}
		return beginning(list, begun), cobra.ShellCompDirectiveNoFileComp
	}
}
