package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

// allHostsFlag has a verb ask every host of the daemon's cluster.
const allHostsFlag = "all-hosts"

// maxTracedHosts is how many hosts are watched at once.
const maxTracedHosts = 128

// allHosts is the flag.
type allHosts bool

func (a *allHosts) flag(c *cobra.Command) {
	c.Flags().BoolVar((*bool)(a), allHostsFlag, false, "ask every host of the daemon's cluster, by its control.listen: needs --cert, --key and --ca")
}

// check refuses what would ask nobody else.
func (a *allHosts) check(c *cobra.Command, g *global) error {
	if f := &g.daemon.files; bool(*a) && (f.Certificate == "" || f.Key == "" || f.CA == "") {
		return usageError{fmt.Errorf("%s: --%s needs --cert, --key and --ca", verbName(c), allHostsFlag)}
	}
	return nil
}

// report says which hosts have not answered. It is a negative answer that there are some.
func (a *allHosts) report(c *cobra.Command, faults []control.HostFault) error {
	if len(faults) == 0 {
		return nil
	}
	slices.SortFunc(faults, func(a, b control.HostFault) int { return cmp.Compare(a.Host, b.Host) })
	for _, f := range faults {
		fmt.Fprintf(c.ErrOrStderr(), "nsgctl: %s: host %s has not answered: %s\n", verbName(c), printable(f.Host), printable(strings.ReplaceAll(f.Fault, "\n", ": ")))
	}
	return errNegative
}

// clusterFlows are the flows of all hosts.
type clusterFlows struct {
	Flows []hostFlow `json:"flows"`
	// Truncated is set when more flows match than the limit let through.
	Truncated bool `json:"truncated"`
	// Unanswered are the hosts whose flows are missing.
	Unanswered []control.HostFault `json:"unanswered"`
}

// hostFlow is a flow of a host. A flow between two hosts has a record at each.
type hostFlow struct {
	Host string `json:"host"`
	inspect.Flow
}

// flowsOfAll asks all hosts for flows, at most as many as the filter's limit together.
func flowsOfAll(c *cobra.Command, g *global, filter inspect.FlowFilter) (*clusterFlows, error) {
	all := &clusterFlows{Flows: []hostFlow{}, Unanswered: []control.HostFault{}}
	client := g.client()
	defer client.Close()
	var mu sync.Mutex
	faults, err := control.EachHost{Files: g.daemon.files}.Ask(c.Context(), client, func(ctx context.Context, host string, one *control.Client, _ func()) error {
		list, err := one.Flows(ctx, filter)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range list.Flows {
			if len(all.Flows) == filter.Limit {
				all.Truncated = true
				break
			}
			all.Flows = append(all.Flows, hostFlow{host, list.Flows[i]})
		}
		all.Truncated = all.Truncated || list.Truncated
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all.Flows, func(a, b hostFlow) int { return cmp.Compare(a.Host, b.Host) })
	all.Unanswered = append(all.Unanswered, faults...)
	return all, nil
}

// hostTrace is a line of a trace of all hosts.
type hostTrace struct {
	Host string `json:"host"`
	*inspect.Trace
}

// traceAll shows the packets of all hosts as they come, until the question's count.
func traceAll(c *cobra.Command, g *global, q inspect.WatchRequest) ([]control.HostFault, error) {
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	errEnough := errors.New("enough")
	var mu sync.Mutex
	seen := 0
	lines := g.lines(c.OutOrStdout())
	table := map[string]func(*inspect.Trace) error{}
	client := g.client()
	defer client.Close()
	faults, err := control.EachHost{Files: g.daemon.files, AtOnce: maxTracedHosts}.Ask(ctx, client, func(ctx context.Context, host string, one *control.Client, answering func()) error {
		return one.Trace(ctx, q, func(t *inspect.Trace) error {
			answering()
			mu.Lock()
			defer mu.Unlock()
			if t.Packet != nil {
				if q.Count > 0 && seen == q.Count {
					return nil
				}
				if seen++; seen == q.Count {
					defer cancel(errEnough)
				}
			}
			if g.output != outputTable {
				return lines.Encode(hostTrace{host, t})
			}
			if table[host] == nil {
				table[host] = traceTable(prefixed(c.OutOrStdout(), host), prefixed(c.ErrOrStderr(), host))
			}
			return table[host](t)
		})
	})
	if errors.Is(context.Cause(ctx), errEnough) || errors.Is(err, context.Canceled) {
		err = nil // the end of a trace is none of an error
	}
	return faults, err
}

// prefixed writes each line behind a host's name. A write holds whole lines.
func prefixed(w io.Writer, host string) io.Writer { return &prefixWriter{w, printable(host) + "  "} }

type prefixWriter struct {
	w      io.Writer
	prefix string
}

// Write implements io.Writer.
func (p *prefixWriter) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if _, err := io.WriteString(p.w, p.prefix+line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
