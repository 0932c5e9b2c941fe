package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// printOutcomes prints a row for each document.
func printOutcomes(w io.Writer, outcomes []*outcome, timed bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "DOCUMENT\tOUTCOME\tNSGS\tRULES\tNETWORKS\tSUBNETS\tNICS\tOPEN\tFAULTS")
	if timed {
		fmt.Fprint(table, "\tTIME")
	}
	fmt.Fprintln(table)
	for _, o := range outcomes {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d", o.name, o.result, o.read.NetworkSecurityGroups, o.read.SecurityRules,
			o.read.VirtualNetworks, o.read.Subnets, o.read.NetworkInterfaces, o.open, o.faults)
		if timed {
			fmt.Fprintf(table, "\t%v", o.elapsed.Round(time.Millisecond))
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// printSums prints how many documents have each result, each cause and each code, the greatest number first.
func printSums(w io.Writer, outcomes []*outcome) {
	sums, causes, codes := map[result]int{}, map[string]int{}, map[string]int{}
	var read, slowest outcome
	tagged := 0
	for _, o := range outcomes {
		sums[o.result]++
		read.read.NetworkSecurityGroups += o.read.NetworkSecurityGroups
		read.read.SecurityRules += o.read.SecurityRules
		read.elapsed += o.elapsed
		if o.elapsed >= slowest.elapsed {
			slowest = *o
		}
		if o.tagged {
			tagged++
		}
		for _, cause := range o.causes {
			causes[cause]++
		}
		for _, code := range o.codes {
			codes[code]++
		}
	}
	fmt.Fprintf(w, "\n%d documents:", len(outcomes))
	for i, r := range results {
		separator := ","
		if i == 0 {
			separator = ""
		}
		fmt.Fprintf(w, "%s %d %s", separator, sums[r], r)
	}
	fmt.Fprintf(w, "\nread: %d network security groups, %d security rules\n", read.read.NetworkSecurityGroups, read.read.SecurityRules)
	fmt.Fprintf(w, "need a service tag file: %d\n", tagged)
	fmt.Fprintf(w, "time: %v, the longest %v: %s\n", read.elapsed.Round(time.Millisecond), slowest.elapsed.Round(time.Millisecond), slowest.name)
	printCounts(w, "documents with a fault of this code", codes)
	printCounts(w, "documents that are open, or were not read, because", causes)
}

func printCounts(w io.Writer, title string, counts map[string]int) {
	if len(counts) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, name := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	}) {
		fmt.Fprintf(w, "%5d  %s\n", counts[name], name)
	}
}
