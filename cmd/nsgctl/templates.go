package main

import (
	"fmt"
	"io"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

// deploymentFlags are those of verbs that read ARM templates.
var deploymentFlags = []string{"parameters", "subscription", groupFlag, "location", "runtime", "allow-partial"}

// groupFlag is the resource group's, which verbs that ask about a resource have already.
const groupFlag = "resource-group"

// addDeployment adds the flags that say what templates are evaluated with.
func addDeployment(c *cobra.Command, d *arm.Deployment) {
	f := c.Flags()
	f.StringArrayVar(&d.Parameters, "parameters", nil, "parameters of ARM templates: a parameters file or NAME=VALUE; may be repeated, the last one holds")
	f.StringVar(&d.Subscription, "subscription", "", "id of the subscription that templates are for (default zeros)")
	if f.Lookup(groupFlag) == nil {
		f.StringVar(&d.ResourceGroup, groupFlag, "", `name of the resource group that templates are for (default "nsgd")`)
	}
	f.StringVar(&d.Location, "location", "", `location of that resource group (default "westeurope")`)
	f.StringVar(&d.Runtime, "runtime", "", "JSON file of what only Azure knows: resources as Azure answers for them, by id or name")
	f.BoolVar(&d.Partial, "allow-partial", false, "leave out what can't be evaluated, with a warning, instead of refusing the policy")
}

// warnLeft lists what --allow-partial leaves out of a policy.
func warnLeft(w io.Writer, left ruleset.Faults) {
	for i := range left {
		fmt.Fprintf(w, "warning: left out: %s\n", printable(left[i].Error()))
	}
}
