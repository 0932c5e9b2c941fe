package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

// diagnoseFlags are the flags of diagnose.
type diagnoseFlags struct {
	of       target
	resource string

	profile azure.NetworkConfigurationDiagnosticProfile
	queries string
	level   string
	expect  expectation
	from    source
}

func init() { addVerb(newDiagnose) }

func newDiagnose(g *global) *cobra.Command {
	var f diagnoseFlags
	c := &cobra.Command{
		Use:     "diagnose --nic NAME --direction D --protocol P --source S --destination D --destination-port PORT | --queries JSON",
		Aliases: []string{"run-configuration-diagnostic"},
		Short:   "Show which network security groups and rules decide about traffic, field by field",
		Long: `Show which network security groups and rules decide about traffic, and which fields of each
rule up to the match hold, in the form of az network watcher run-configuration-diagnostic.

Source and destination are an address, a CIDR, a service tag that a rule names, or *; the
protocol and the port may be * too. Then a field holds when it holds for all of it, and the
verdict is that for what no rule singles out; rules that decide a part are named
(partlyMatchedRules). A question whose answer is different in every part is refused.

With --queries, several at once, as a JSON list or @FILE:
  [{"direction": "Inbound", "protocol": "TCP", "source": "203.0.113.10", "destination": "10.0.1.4", "destinationPort": "80"}]`,
		Example: `  nsgctl diagnose --policy policy --nic vm1-nic --direction Inbound --protocol TCP --source Internet --destination 10.0.1.4 --port https
  nsgctl diagnose --policy policy --vm vm1 --queries @questions.json --expect deny`,
		Args: f.from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := f.question(c)
			if err != nil {
				return err
			}
			type result = *azure.NetworkConfigurationDiagnosticResponse
			response, err := answer(&f.from, g,
				func(d *control.Client) (result, error) { return d.Diagnose(c.Context(), q) },
				func(p *inspect.Loaded) (result, error) { return ask.Diagnose(p.Snapshot, q) })
			err = show(c, g, response, err, diagnoseTable)
			if err != nil {
				return err
			}
			return f.expected(c, response)
		},
	}
	flags := c.Flags()
	f.from.of = &f.of
	f.of.flags(c)
	flags.StringVar(&f.resource, "resource", "", "network interface or virtual machine, by name or resource id")
	flags.StringVar(&f.profile.Direction, "direction", "", "Inbound or Outbound, as the network interface sees it")
	flags.StringVar(&f.profile.Protocol, "protocol", "", "TCP, UDP, ICMP, ESP, AH, a number or *")
	flags.StringVar(&f.profile.Source, "source", "", "address, CIDR, service tag or *")
	flags.StringVar(&f.profile.Destination, "destination", "", "address, CIDR, service tag or *")
	flags.StringVar(&f.profile.DestinationPort, "destination-port", "", "port, a service's name such as https, or *")
	flags.StringVar(&f.profile.DestinationPort, "port", "", "the same as --destination-port")
	flags.StringVar(&f.queries, "queries", "", "JSON list of questions, or @FILE; - is standard input")
	flags.StringVar(&f.level, "verbosity-level", "", "Normal, Minimum (no fields of rules) or Full (of the rules behind the match too)")
	f.expect.flag(c)
	f.from.flags(c, g)
	complete(c, "destination-port", serviceNames)
	complete(c, "port", serviceNames)
	complete(c, "direction", words("Inbound", "Outbound"))
	complete(c, "protocol", words("TCP", "UDP", "ICMP", "ESP", "AH"))
	f.from.subscriptionFlags(c)
	return c
}

// expected compares the answers with --expect, which is for all of the traffic.
func (f *diagnoseFlags) expected(c *cobra.Command, r *azure.NetworkConfigurationDiagnosticResponse) error {
	for i := range r.Results {
		result := &r.Results[i].NetworkSecurityGroupResult
		instead := "the answer is " + headed(result)
		if len(r.Results) > 1 {
			instead = fmt.Sprintf("answer %d is %s", i+1, headed(result))
		}
		if f.expect.disappoints(result.SecurityRuleAccessResult) || f.expect != "" && result.PartlyOtherwise {
			return f.expect.failed(c, instead)
		}
	}
	return nil
}

// headed is the access, and whether all of the traffic has it.
func headed(r *azure.NetworkSecurityGroupResult) string {
	if r.PartlyOtherwise {
		return r.SecurityRuleAccessResult + " but for a part"
	}
	return r.SecurityRuleAccessResult
}

func (f *diagnoseFlags) question(c *cobra.Command) (*azure.NetworkConfigurationDiagnosticParameters, error) {
	wrong := func(format string, args ...any) error {
		return usageError{fmt.Errorf("diagnose: "+format, args...)}
	}
	targets := 0
	for _, given := range []string{f.of.nic, f.of.vm, f.resource} {
		if given != "" {
			targets++
		}
	}
	if targets != 1 {
		return nil, wrong("one of --nic, --vm and --resource is needed")
	}
	if f.resource != "" && f.of.group != "" && len(f.from.policy) == 0 {
		return nil, wrong("--resource-group goes with --nic or --vm")
	}
	if err := f.from.checkSubscription("diagnose"); err != nil {
		return nil, err
	}
	if err := f.expect.check("diagnose"); err != nil {
		return nil, err
	}
	f.profile.DestinationPort = portNumber(f.profile.DestinationPort)
	q := &azure.NetworkConfigurationDiagnosticParameters{
		TargetResourceID: f.of.networkInterface() + f.of.virtualMachine() + f.resource, VerbosityLevel: f.level,
		Profiles: []azure.NetworkConfigurationDiagnosticProfile{f.profile},
	}
	if _, err := q.Verbosity(); err != nil {
		return nil, wrong("%w", inFlags(err, diagnoseWords))
	}
	for _, name := range []string{"direction", "protocol", "source", "destination", "destination-port", "port"} {
		given := c.Flags().Changed(name)
		switch {
		case f.queries != "" && given:
			return nil, wrong("--%s and --queries exclude each other", name)
		case f.queries == "" && !given && !strings.HasSuffix(name, "port"): // some protocols have none
			return nil, wrong("--%s is missing (or --queries)", name)
		}
	}
	if f.queries != "" {
		var err error
		if q.Profiles, err = f.profiles(c.InOrStdin()); err != nil {
			return nil, wrong("--queries: %w", err)
		}
	}
	for i := range q.Profiles {
		_, err := q.Profiles[i].Traffic()
		switch {
		case err != nil && f.queries == "":
			return nil, wrong("%w", inFlags(err, diagnoseWords))
		case err != nil:
			return nil, wrong("--queries: [%d]: %w", i, err)
		}
	}
	return q, nil
}

// diagnoseWords are the flags for Azure's fields.
var diagnoseWords = map[string]string{"verbosityLevel": "--verbosity-level", "direction": "--direction", "protocol": "--protocol",
	"source": "--source", "destination": "--destination", "destinationPort": "--destination-port"}

// profiles reads --queries.
func (f *diagnoseFlags) profiles(stdin io.Reader) ([]azure.NetworkConfigurationDiagnosticProfile, error) {
	var in io.Reader = strings.NewReader(f.queries)
	if f.queries == "-" {
		in = stdin
	} else if name, ok := strings.CutPrefix(f.queries, "@"); ok {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	var list []azure.NetworkConfigurationDiagnosticProfile
	decoder := json.NewDecoder(in)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("not a JSON list of questions: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if len(list) == 0 {
		return nil, errors.New("the list is empty")
	}
	return list, nil
}

func diagnoseTable(w io.Writer, r *azure.NetworkConfigurationDiagnosticResponse) error {
	for i := range r.Results {
		if i > 0 {
			fmt.Fprintln(w)
		}
		p, result := &r.Results[i].Profile, &r.Results[i].NetworkSecurityGroupResult
		port := ""
		if p.DestinationPort != "" {
			port = " port " + p.DestinationPort
		}
		fmt.Fprintf(w, "%s: %s %s from %s to %s%s\n", headed(result), p.Direction, p.Protocol, p.Source, p.Destination, port)
		if result.Reason != "" {
			fmt.Fprintf(w, "no rule decides: %s\n", result.Reason)
		} else if len(result.EvaluatedNetworkSecurityGroups) == 0 {
			fmt.Fprintln(w, "no network security group decides")
		}
		for j := range result.EvaluatedNetworkSecurityGroups {
			if err := evaluatedTable(w, &result.EvaluatedNetworkSecurityGroups[j]); err != nil {
				return err
			}
		}
		if names := result.PartlyMatchedBefore; len(names) > 0 {
			fmt.Fprintf(w, "a part meets %s before\n", strings.Join(names, ", "))
		}
	}
	return nil
}

func evaluatedTable(w io.Writer, g *azure.EvaluatedNetworkSecurityGroup) error {
	fmt.Fprintf(w, "%s on %s: %s by %s\n", lastName(g.NetworkSecurityGroupID), lastName(g.AppliedTo), g.MatchedRule.Action, g.MatchedRule.RuleName)
	if len(g.RulesEvaluationResult) > 0 {
		table := newGrid(w, "  RULE", "PROTOCOL", "SOURCE", "SOURCE PORT", "DESTINATION", "PORT")
		for i := range g.RulesEvaluationResult {
			e := &g.RulesEvaluationResult[i]
			table.row("  "+e.Name, yes(e.ProtocolMatched), yes(e.SourceMatched), yes(e.SourcePortMatched), yes(e.DestinationMatched), yes(e.DestinationPortMatched))
		}
		if err := table.flush(); err != nil {
			return err
		}
	}
	if len(g.PartlyMatchedRules) > 0 {
		fmt.Fprintf(w, "  a part meets %s before\n", strings.Join(g.PartlyMatchedRules, ", "))
	}
	return nil
}

func yes(matched bool) string {
	if matched {
		return "yes"
	}
	return "no"
}
