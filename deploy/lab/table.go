package lab

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table prints one line a result: source, destination, protocol and port, what
// the wire did, and the network security group and rule of the verdict. A
// result that contradicts its verdict is marked MISMATCH and says both.
func Table(w io.Writer, rows []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SOURCE\tDESTINATION\tPROTOCOL\tWIRE\tNSG\tRULE")
	for i := range rows {
		r := &rows[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n",
			r.Source.Name, r.Destination.Name, r.service(), r.outcome(), orDash(r.NetworkSecurityGroup), orDash(r.Rule))
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
