package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
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
	flags.StringVar(&f.local, "local", "", "the network interface's address, and port for TCP and UDP")
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
		return nil, usageError{fmt.Errorf("verify: %w", err)}
	}
	return line, nil
}

// splitEnd takes IP, IP:PORT, IP:* or [IPv6]:PORT apart.
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
	if port != "*" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", "", fmt.Errorf("%q: port %q: allowed are 0 to 65535 and *", text, port)
		}
	}
	return address, port, nil
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
	if g.output == outputJSON {
		_, err = c.OutOrStdout().Write(result.Bytes())
	} else {
		err = verifyTable(c.OutOrStdout(), v.VerificationIPFlowResult)
	}
	if err == nil && f.expect.disappoints(v.Access) {
		err = errNegative
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

// runMany streams requests through and prints results as they come.
func (f *verifyFlags) runMany(c *cobra.Command, g *global) error {
	requests := c.InOrStdin()
	if f.requests != "-" {
		file, err := os.Open(f.requests)
		if err != nil {
			return usageError{fmt.Errorf("verify: --requests: %w", err)}
		}
		defer file.Close()
		requests = file
	}
	verify, err := f.verifier(g)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	reader, writer := io.Pipe()
	// Reading requests has no deadline: an interrupt must not wait for the next request.
	context.AfterFunc(ctx, func() { writer.CloseWithError(fmt.Errorf("verify: %w", context.Cause(ctx))) })
	go func() {
		writer.CloseWithError(verify(ctx, requests, writer))
	}()
	negative, err := f.printMany(c.OutOrStdout(), g, reader)
	if err == nil && negative {
		err = errNegative
	}
	return err
}

// printMany prints results until they end; negative tells that one of them was an
// error or not as expected.
func (f *verifyFlags) printMany(w io.Writer, g *global, results io.Reader) (negative bool, err error) {
	out := bufio.NewWriter(w)
	table := &grid{}
	if g.output == outputTable {
		table = newGrid(out, "ACCESS", "NSG", "RULE", "REASON")
	}
	lines := bufio.NewReader(results)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var v ask.Verification
			if err := json.Unmarshal(line, &v); err != nil {
				return negative, fmt.Errorf("verify: answer: %w", err)
			}
			if v.VerificationIPFlowResult == nil {
				v.VerificationIPFlowResult = &azure.VerificationIPFlowResult{}
			}
			negative = negative || v.Error != "" || f.expect.disappoints(v.Access)
			if g.output == outputTable {
				table.row(v.Access, v.NetworkSecurityGroup, v.RuleName, v.Reason+v.Error)
			} else if _, err := out.Write(line); err != nil {
				return negative, err
			}
		}
		if lines.Buffered() == 0 && g.output == outputJSON {
			// A caller that sends requests one by one waits for this answer.
			if err := out.Flush(); err != nil {
				return negative, err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return negative, err
		}
	}
	if g.output == outputTable {
		if err := table.flush(); err != nil {
			return negative, err
		}
	}
	return negative, out.Flush()
}
