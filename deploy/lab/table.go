package lab

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// line is what the IPv4 and IPv6 results in one line of the table have in common.
type line struct {
	source, destination, service string
	networkSecurityGroup, rule   string
}

func (l line) probe() [3]string { return [3]string{l.source, l.destination, l.service} }

// Table prints source, destination, protocol and port, whether the probe passed over IPv4
// and over IPv6, and the verdict's network security group and rule. Both families share a
// line unless different rules decided. A result that contradicts its verdict says MISMATCH.
func Table(w io.Writer, results []Result) error {
	var lines []line
	outcomes := map[line]map[Family]string{}
	for i := range results {
		r := &results[i]
		l := line{r.Source.Name, r.Destination.Name, r.service(), r.NetworkSecurityGroup, r.Rule}
		if outcomes[l] == nil {
			outcomes[l] = map[Family]string{}
			lines = append(lines, l)
		}
		outcomes[l][r.Source.Family()] = r.outcome()
	}
	// Both lines of a probe stand together, even if their rules differ.
	order := map[[3]string]int{}
	for i, l := range lines {
		if _, known := order[l.probe()]; !known {
			order[l.probe()] = i
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(order[a.probe()], order[b.probe()]) })

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SOURCE\tDESTINATION\tPROTOCOL\tIPV4\tIPV6\tNSG\tRULE")
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.source, l.destination, l.service,
			orDash(outcomes[l][IPv4]), orDash(outcomes[l][IPv6]), orDash(l.networkSecurityGroup), orDash(l.rule))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("lab: print table: %w", err)
	}
	return nil
}

func (r *Result) service() string {
	if r.Protocol == ICMP {
		return string(r.Protocol)
	}
	return fmt.Sprintf("%s/%d", r.Protocol, r.Port)
}

func (r *Result) outcome() string {
	switch {
	case r.Mismatch() && r.Passed:
		return "MISMATCH: passed, rules deny"
	case r.Mismatch():
		return fmt.Sprintf("MISMATCH: rules allow, but %v", r.Err)
	case r.Passed:
		return "allowed"
	}
	return "denied"
}

func orDash(s string) string { return cmp.Or(s, "-") }
