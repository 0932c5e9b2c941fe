package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// clusterFacts shows how a host does in its cluster; nil: it is in none.
func clusterFacts(facts *grid, c *inspect.ClusterStatus) {
	if c == nil {
		return
	}
	carried := fmt.Sprintf("%s carries generation %d", c.Host, c.Generation)
	if c.Current != c.Generation {
		carried += fmt.Sprintf("; %d is current", c.Current)
	}
	facts.row("cluster", carried)
	etcd := fmt.Sprintf("%s, %s claimed", plural(c.Hosts, "host"), plural(c.Claims, "network interface"))
	switch {
	case !c.Connected && c.Error == "":
		etcd = "has not answered yet"
	case !c.Connected:
		etcd = "does not answer: " + c.Error
	}
	facts.row("etcd", etcd)
	switch s := c.CarriesSeconds; {
	case s == nil:
		facts.row("lease", "goes on without one")
	case *s > 0:
		facts.row("lease", fmt.Sprintf("carries for %v more at least", time.Duration(*s*float64(time.Second)).Round(time.Millisecond)))
	default:
		facts.row("lease", "has ended: nothing is carried")
	}
	if c.Refused != 0 {
		first, _, _ := strings.Cut(c.RefusedFor, "\n")
		facts.row("refuses", fmt.Sprintf("generation %d: %s", c.Refused, first))
	}
	for _, w := range c.Waiting {
		holder := "nobody has claimed it"
		if w.Host != "" {
			holder = "host " + w.Host + " has it"
		}
		facts.row("waits", lastName(w.NetworkInterface)+": "+holder)
	}
	for _, fault := range c.Faults {
		facts.row("fault", fault)
	}
}
