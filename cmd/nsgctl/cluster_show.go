//go:build !nocluster

package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// clusterStatus is the JSON of cluster status.
type clusterStatus struct {
	// Head is the current generation; absent before the first one.
	Head *cluster.Head `json:"head,omitempty"`
	// Offer is an apply under way; absent when there is none.
	Offer *cluster.Offer `json:"offer,omitempty"`
	Hosts []clusterHost  `json:"hosts"`
	// Claims counts the network interfaces that hosts have.
	Claims int `json:"claims"`
	// Faults are records of etcd that can't be read, and what hosts say is wrong.
	Faults []string `json:"faults"`
}

// clusterHost is a host in answers.
type clusterHost struct {
	Name string `json:"name"`
	cluster.HostRecord
	cluster.Report
	Epoch             int64 `json:"epoch"`
	NetworkInterfaces int   `json:"networkInterfaces"`
}

func hostsOf(v *cluster.View) []clusterHost {
	counts := map[string]int{}
	for _, c := range v.Claims {
		if v.Registered(&c.ClaimRecord) {
			counts[c.Host]++
		}
	}
	list := []clusterHost{}
	for _, name := range slices.Sorted(maps.Keys(v.Hosts)) {
		h := v.Hosts[name]
		list = append(list, clusterHost{name, h.HostRecord, h.Report, h.Epoch, counts[name]})
	}
	return list
}

func newClusterStatus(g *global, f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say which generation is current, who carries it, and what is wrong",
		Long: `Say which generation is current, who carries it, and what is wrong.

Exit code 1: a host does not carry the current generation, or has a fault.`,
		Example: `  nsgctl cluster status --endpoints http://127.0.0.1:2379`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			view, err := withView(c, f, func(_ *cluster.Store, v *cluster.View) (*cluster.View, error) { return v, nil })
			if err != nil {
				return err
			}
			s := &clusterStatus{Head: view.Head, Offer: view.Offer, Hosts: hostsOf(view), Claims: len(view.Claims), Faults: []string{}}
			behind := false
			for _, h := range s.Hosts {
				behind = behind || view.Head != nil && h.Generation != view.Head.Current
				for _, fault := range h.Faults {
					s.Faults = append(s.Faults, h.Name+": "+fault)
				}
			}
			for _, key := range slices.Sorted(maps.Keys(view.Faults)) {
				s.Faults = append(s.Faults, view.Faults[key])
			}
			if err := show(c, g, s, nil, clusterStatusTable); err != nil {
				return err
			}
			if behind || len(s.Faults) > 0 {
				return errNegative
			}
			return nil
		},
	}
}

func clusterStatusTable(w io.Writer, s *clusterStatus) error {
	if s.Head == nil {
		fmt.Fprintln(w, "current: none yet")
	} else {
		fmt.Fprintf(w, "current: generation %d, by %s at %s\n", s.Head.Current, printable(s.Head.By), s.Head.When.Local().Format(time.RFC3339))
	}
	if o := s.Offer; o != nil {
		fmt.Fprintf(w, "on offer: generation %d, by %s since %s\n", o.Generation, printable(o.By), o.Since.Local().Format(time.TimeOnly))
	}
	carry := 0
	for _, h := range s.Hosts {
		if s.Head != nil && h.Generation == s.Head.Current {
			carry++
		}
	}
	fmt.Fprintf(w, "carried by %d of %s; %s claimed\n", carry, plural(len(s.Hosts), "host"), plural(s.Claims, "network interface"))
	for _, fault := range s.Faults {
		fmt.Fprintf(w, "fault: %s\n", printable(fault))
	}
	return nil
}

func newClusterHosts(g *global, f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "hosts",
		Short:   "List the hosts that live, with what they carry",
		Example: `  nsgctl cluster hosts -o json --endpoints http://127.0.0.1:2379`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := withView(c, f, func(_ *cluster.Store, v *cluster.View) ([]clusterHost, error) { return hostsOf(v), nil })
			return show(c, g, list, err, clusterHostsTable)
		},
	}
}

func clusterHostsTable(w io.Writer, hosts []clusterHost) error {
	table := newGrid(w, "HOST", "UNDERLAY", "MTU", "VERSION", "GENERATION", "NICS", "INTERNET", "FAULT")
	for _, h := range hosts {
		fault, internet := several(h.Faults), ""
		if h.Refused != nil {
			first, _, _ := strings.Cut(h.Refused.Fault, "\n")
			fault = fmt.Sprintf("refuses %d: %s", h.Refused.Generation, first)
		}
		if h.Internet {
			internet = "yes"
		}
		table.row(h.Name, netip.AddrPortFrom(h.Underlay, h.Port), h.MTU, h.Version, h.Generation, h.NetworkInterfaces, internet, fault)
	}
	return table.flush()
}

// clusterNIC is a network interface with its host.
type clusterNIC struct {
	// ID is in lower case.
	ID   string `json:"id"`
	Host string `json:"host"`
	// Gone says that the host's lease has ended: nobody carries it, or another host will soon.
	Gone bool `json:"gone,omitempty"`
	// Epoch rises with each claim.
	Epoch int64 `json:"epoch"`
	// Move is under way; absent: it stays.
	Move *cluster.MoveRecord `json:"move,omitempty"`
}

func newClusterNICs(g *global, f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "nics",
		Short:   "List the network interfaces that hosts have claimed",
		Example: `  nsgctl cluster nics --endpoints http://127.0.0.1:2379`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := withView(c, f, func(_ *cluster.Store, view *cluster.View) ([]clusterNIC, error) {
				list := []clusterNIC{}
				for _, id := range slices.Sorted(maps.Keys(view.Claims)) {
					c := view.Claims[id]
					one := clusterNIC{ID: id, Host: c.Host, Gone: !view.Registered(&c.ClaimRecord), Epoch: c.Revision}
					if m := view.Moves[id]; m != nil {
						one.Move = &m.MoveRecord
					}
					list = append(list, one)
				}
				return list, nil
			})
			return show(c, g, list, err, func(w io.Writer, list []clusterNIC) error {
				table := newGrid(w, "NIC", "HOST", "EPOCH", "MOVES TO")
				for _, n := range list {
					to, host := "", n.Host
					if n.Move != nil {
						to = n.Move.To
					}
					if n.Gone {
						host += " (gone)"
					}
					table.row(n.ID, host, n.Epoch, to)
				}
				return table.flush()
			})
		},
	}
}

// clusterGeneration is a generation in the history.
type clusterGeneration struct {
	*generation.Manifest
	Current bool `json:"current"`
	Signed  bool `json:"signed"`
	// Fault says why it can't be read; absent when it can.
	Fault string `json:"fault,omitempty"`
}

func newClusterHistory(g *global, f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "List the generations that etcd has, the newest first, with who applied them and when",
		Example: `  nsgctl cluster history --endpoints http://127.0.0.1:2379`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := withView(c, f, func(s *cluster.Store, view *cluster.View) ([]clusterGeneration, error) {
				history, err := s.History(c.Context())
				list := []clusterGeneration{}
				for _, r := range history {
					one := clusterGeneration{Manifest: r.Manifest, Current: view.Head != nil && view.Head.Current == r.Number, Signed: generation.IsSigned(r.Sealed)}
					if r.Fault != nil {
						one.Fault = r.Fault.Error()
					}
					list = append(list, one)
				}
				return list, err
			})
			return show(c, g, list, err, clusterHistoryTable)
		},
	}
}

func clusterHistoryTable(w io.Writer, list []clusterGeneration) error {
	table := newGrid(w, "GENERATION", "STATE", "BY", "AT", "BYTES", "SIGNED", "MESSAGE")
	for _, g := range list {
		state, signed, message := "", "", g.Message
		if g.Current {
			state = "current"
		}
		if g.Signed {
			signed = "yes"
		}
		if g.Fault != "" {
			state, message = "fault", g.Fault
		}
		table.row(g.Number, state, g.Who, g.When.Local().Format(time.RFC3339), g.Size, signed, message)
	}
	return table.flush()
}

// lastTwo are the generation before the current one, and that.
func lastTwo(c *cobra.Command, s *cluster.Store) (before, current uint64, err error) {
	view, err := s.View(c.Context())
	if err != nil {
		return 0, 0, err
	}
	if view.Head == nil {
		return 0, 0, errNoHead
	}
	history, err := s.History(c.Context())
	if err != nil {
		return 0, 0, err
	}
	for _, r := range history {
		if r.Number < view.Head.Current {
			return r.Number, view.Head.Current, nil
		}
	}
	return 0, 0, fmt.Errorf("generation %d is current, and none from before it is kept", view.Head.Current)
}

func newClusterDiff(g *global, f *clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "diff [N] [M]",
		Short: "Say what generation M newly allows and denies against N, for all packets",
		Long: `Say what generation M newly allows and denies against N, for all packets, as nsgctl diff does. Without M it is the current
generation, without N the one before the current one.`,
		Example:     `  nsgctl cluster diff 11 12 --endpoints http://127.0.0.1:2379`,
		Annotations: map[string]string{moreFormats: diffFormats},
		Args:        atMost(2, "two, the generations' numbers"),
		RunE: func(c *cobra.Command, args []string) error {
			result, err := withStore(c, f, func(s *cluster.Store) (*inspect.RunningDiff, error) { return compareGenerations(c, s, args) })
			if err != nil {
				return err
			}
			if g.output == outputMarkdown {
				return diffMarkdown(c.OutOrStdout(), result)
			}
			return showReport(c, g, result, diffTable, (&diffFlags{}).entries)
		},
	}
}

func compareGenerations(c *cobra.Command, s *cluster.Store, args []string) (*inspect.RunningDiff, error) {
	var numbers []uint64
	for _, text := range args {
		n, err := parseNumber(c, text)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	if len(numbers) < 2 {
		before, current, err := lastTwo(c, s)
		if err != nil {
			return nil, err
		}
		if len(numbers) == 0 {
			numbers = append(numbers, before)
		}
		numbers = append(numbers, current)
	}
	var policies []*inspect.Loaded
	for _, n := range numbers {
		r, err := s.Generation(c.Context(), n, nil)
		if err != nil {
			return nil, err
		}
		compressed, err := s.Bundle(c.Context(), r.Manifest)
		if err != nil {
			return nil, err
		}
		loaded, err := openBundle(c, r.Manifest, compressed)
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", n, err)
		}
		policies = append(policies, loaded)
	}
	return interruptible(c.Context(), func() (*inspect.RunningDiff, error) {
		return &inspect.RunningDiff{DiffResult: inspect.Diff(policies[0], policies[1], 0)}, nil
	})
}
