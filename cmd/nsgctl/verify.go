package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

// verifyFlags are the flags of verify.
type verifyFlags struct {
	of                                 target
	direction, protocol, local, remote string

	requests string
	path     bool
	expect   expectation
	from     source
}

func init() { addVerb(newVerify) }

func newVerify(g *global) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:     "verify --nic NAME --direction D --protocol P --local IP[:PORT] --remote IP[:PORT] | --requests FILE",
		Aliases: []string{"test-ip-flow"},
		Short:   "Say whether a new flow of a network interface is allowed, and by which rule",
		Long: `Say whether a new flow of a network interface is allowed, and by which rule: the
network interface's own chain of network security groups, as Azure's IP flow verify and
az network watcher test-ip-flow. The source port may be *. --vm is enough where the
policy's network interfaces name their virtual machine: the one that has the local address answers.
Without both, the local address must tell: a private one that one network interface has, or one that
the outside sees, of a public IP, load balancer or inbound NAT rule. What is translated on the way is
shown; the rules see the private address.

With --requests, one JSON object a line, as Azure's API takes them:
  {"targetNicResourceId":"vm1-nic","direction":"Inbound","protocol":"TCP","localPort":"80",
   "remotePort":"60000","localIPAddress":"10.0.1.4","remoteIPAddress":"203.0.113.10"}
and one result a line out in the same order, decided by one policy. A request without an
answer gives a line {"error":"..."} and exit code 1 at the end.`,
		Example: `  nsgctl verify --policy policy --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4:https --remote 203.0.113.10:* --expect allow
  nsgctl verify --policy policy --requests questions.jsonl -o json`,
		Args: f.from.args,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			if f.requests != "" {
				return f.runMany(c, g)
			}
			return f.runOne(c, g)
		},
	}
	flags := c.Flags()
	f.from.of = &f.of
	f.of.flags(c)
	flags.StringVar(&f.direction, "direction", "", "Inbound or Outbound, as the network interface sees it")
	flags.StringVar(&f.protocol, "protocol", "", "TCP, UDP, ICMP, ESP, AH or a number")
	flags.StringVar(&f.local, "local", "", "the network interface's address, and port for TCP and UDP: 10.0.1.4:443 or 10.0.1.4:https")
	flags.StringVar(&f.remote, "remote", "", "the other end's address, and port for TCP and UDP")
	flags.StringVar(&f.requests, "requests", "", "file of requests, one JSON object a line; - is standard input")
	flags.BoolVar(&f.path, "path", false, "judge the other end's network security groups too, where they are known")
	f.expect.flag(c)
	f.from.flags(c, g)
	complete(c, "direction", words("Inbound", "Outbound"))
	complete(c, "protocol", words("TCP", "UDP", "ICMP", "ESP", "AH"))
	f.from.subscriptionFlags(c)
	return c
}

func (f *verifyFlags) check(c *cobra.Command) error {
	if err := f.expect.check("verify"); err != nil {
		return err
	}
	if err := f.from.checkSubscription("verify"); err != nil {
		return err
	}
	for _, name := range []string{"nic", "vm", "direction", "protocol", "local", "remote"} {
		given := c.Flags().Changed(name)
		switch {
		case f.requests != "" && given:
			return usageError{fmt.Errorf("verify: --%s and --requests exclude each other", name)}
		case name == "vm", name == "nic", given, f.requests != "":
		default:
			return usageError{fmt.Errorf("verify: --%s is missing (or --requests)", name)}
		}
	}
	return nil
}

// request is the single question as a line of requests.
func (f *verifyFlags) request() ([]byte, error) {
	local, localPort, err := splitEnd(f.local)
	if err != nil {
		return nil, usageError{fmt.Errorf("verify: --local %w", err)}
	}
	remote, remotePort, err := splitEnd(f.remote)
	if err != nil {
		return nil, usageError{fmt.Errorf("verify: --remote %w", err)}
	}
	line, err := json.Marshal(&azure.VerificationIPFlowParameters{
		TargetResourceID: f.of.virtualMachine(), TargetNicResourceID: f.of.networkInterface(), Direction: f.direction, Protocol: f.protocol,
		LocalIPAddress: local, LocalPort: localPort, RemoteIPAddress: remote, RemotePort: remotePort,
	})
	if err != nil {
		return nil, err
	}
	if _, err := azure.ParseFlow(line); err != nil {
		return nil, usageError{fmt.Errorf("verify: %w", inFlags(err, map[string]string{"direction": "--direction", "protocol": "--protocol",
			"localIPAddress": "--local", "localPort": fmt.Sprintf("--local %q: port", f.local),
			"remoteIPAddress": "--remote", "remotePort": fmt.Sprintf("--remote %q: port", f.remote)}))}
	}
	return line, nil
}

// splitEnd takes IP, IP:PORT, IP:* or [IPv6]:PORT apart. A service's name becomes its port.
func splitEnd(text string) (address, port string, err error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, "", nil
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", "", fmt.Errorf("%q: allowed are IP and IP:PORT", text)
	}
	address, port = text[:i], text[i+1:]
	if inner, ok := strings.CutPrefix(address, "["); ok {
		address, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return "", "", fmt.Errorf("%q: a ] is missing", text)
		}
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return "", "", fmt.Errorf("%q: %q is no IP address: allowed are IP, IP:PORT and [IPv6]:PORT", text, address)
	}
	if _, ok := parsePort(port); !ok && port != "*" {
		return "", "", fmt.Errorf("%q: port %q: allowed are %s, and *", text, port, portWords)
	}
	return address, portNumber(port), nil
}

// verifier answers a stream of requests; see ask.VerifyStream.
type verifier func(ctx context.Context, requests io.Reader, results io.Writer) error

func (f *verifyFlags) verifier(g *global) (verifier, error) {
	return answer(&f.from, g,
		func(d *control.Client) (verifier, error) {
			return func(ctx context.Context, requests io.Reader, results io.Writer) error {
				return d.Verify(ctx, f.path, requests, results)
			}, nil
		},
		func(p *inspect.Loaded) (verifier, error) {
			return func(_ context.Context, requests io.Reader, results io.Writer) error {
				return ask.VerifyStream(p.Snapshot, f.path, requests, results)
			}, nil
		})
}

func (f *verifyFlags) runOne(c *cobra.Command, g *global) error {
	line, err := f.request()
	if err != nil {
		return err
	}
	verify, err := f.verifier(g)
	if err != nil {
		return err
	}
	var result bytes.Buffer
	if err := verify(c.Context(), bytes.NewReader(line), &result); err != nil {
		return err
	}
	var v ask.Verification
	if err := json.Unmarshal(result.Bytes(), &v); err != nil {
		return fmt.Errorf("verify: answer: %w", err)
	}
	if v.Error != "" || v.VerificationIPFlowResult == nil {
		return fmt.Errorf("verify: %s", strings.TrimPrefix(v.Error, "line 1: "))
	}
	if g.output == outputTable {
		err = verifyTable(c.OutOrStdout(), v.VerificationIPFlowResult)
	} else {
		err = g.lines(c.OutOrStdout()).Encode(json.RawMessage(result.Bytes()))
	}
	if err == nil && f.expect.disappoints(v.Access) {
		err = f.expect.failed(c, "the answer is "+v.Access)
	}
	return err
}

// translationLine is such as "destination 198.51.100.10:80 becomes 10.1.1.4:8080 of web1-nic by
// loadBalancingRule http of shop-lb".
func translationLine(t *azure.Translation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", t.Side, t.From)
	switch {
	case t.FloatingIP:
		b.WriteString(" stays")
	default:
		b.WriteString(" becomes " + t.To)
	}
	if t.Side == "destination" && t.NetworkInterface != "" {
		if t.FloatingIP {
			b.WriteString(" and goes to " + t.NetworkInterface)
		} else {
			b.WriteString(" of " + t.NetworkInterface)
		}
	}
	if t.By != "" {
		b.WriteString(" by " + t.By)
	}
	if t.Rule != "" {
		b.WriteString(" " + t.Rule + " of")
	}
	if t.Resource != "" {
		b.WriteString(" " + t.Resource)
	}
	return b.String()
}

func verifyTable(w io.Writer, r *azure.VerificationIPFlowResult) error {
	switch {
	case r.RuleName != "":
		fmt.Fprintf(w, "%s by %s of %s\n", r.Access, r.RuleName, r.NetworkSecurityGroup)
	default:
		fmt.Fprintf(w, "%s: %s\n", r.Access, r.Reason)
	}
	for i := range r.Translations {
		fmt.Fprintln(w, translationLine(&r.Translations[i]))
	}
	if len(r.Stages) == 0 {
		return nil
	}
	table := newGrid(w, "NSG", "ON", "DIRECTION", "PRIORITY", "ACCESS", "RULE")
	for i := range r.Stages {
		s := &r.Stages[i]
		table.row(s.NetworkSecurityGroup, s.Association, s.Direction, s.Priority, s.Access, s.RuleName)
	}
	return table.flush()
}
