package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// runLab runs the built-in lab: it sends real traffic between all hosts, prints which
// probes passed and the rules that decided, and stays up until ctx ends.
func runLab(ctx context.Context, stderr, out io.Writer) (err error) {
	dir, release, err := labFolder(os.TempDir())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := lab.WriteTo(dir); err != nil {
		return err
	}
	var mismatch error
	err = runConfig(ctx, filepath.Join(dir, lab.ConfigName), stderr, out, func(ctx context.Context, d *daemon) error {
		mismatch, err = d.showLab(ctx, dir, out)
		return err
	})
	return errors.Join(err, mismatch)
}

// serveLab opens the servers of all hosts, until ctx ends.
func (d *daemon) serveLab(ctx context.Context) error {
	_, err := lab.Serve(ctx, lab.AllHosts(), lab.Options{})
	return err
}

// showLab probes and prints. A mismatch between wire and verdict is not an error: the
// lab stays up, so that a person can look at it.
func (d *daemon) showLab(ctx context.Context, dir string, out io.Writer) (mismatch, err error) {
	if err := d.serveLab(ctx); err != nil {
		return nil, err
	}
	results, err := lab.Run(ctx, lab.AllHosts(), lab.Options{Platform: true, Explain: explainBy(d.engine.Snapshot)})
	if errors.Is(err, lab.ErrMismatch) {
		mismatch, err = err, nil
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := lab.Table(out, results); err != nil {
		return mismatch, err
	}
	if mismatch != nil {
		fmt.Fprintf(out, "\n%v\n", mismatch)
	}
	_, err = io.WriteString(out, d.labHints(filepath.Join(dir, "policy")))
	return mismatch, err
}

// labHints returns what to try after the table.
func (d *daemon) labHints(policy string) string {
	nsgctl := besideDaemon(os.Args[0], "nsgctl")
	var b strings.Builder
	b.WriteString("\nThe lab stays up until Ctrl-C.\n")
	if address := d.metricsAddress(); address != "" {
		fmt.Fprintf(&b, "Metrics: http://%s/metrics\n", address)
	}
	fmt.Fprintf(&b, "Policy:  %s (change it, then: %s reload)\n\nTo try more, as root in another terminal:\n", policy, nsgctl)
	for _, command := range []string{
		"ip netns exec nsgd-internet curl http://10.0.1.4/",
		"ip netns exec nsgd-internet curl -m 2 http://10.0.1.4:8080/",
		nsgctl + " verify --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4:8080 --remote 203.0.113.10:50000",
		nsgctl + " effective --nic vm1-nic",
		nsgctl + " rules",
		nsgctl + " flows",
		"ip netns exec nsgd-vm1 ping -c 3 10.0.2.4",
		"ip netns exec nsgd-internet ping -c 3 fd00:db8:1:1::4",
	} {
		b.WriteString("  " + command + "\n")
	}
	return b.String()
}

// besideDaemon returns the path of a tool in the daemon's folder, which may not be in PATH.
func besideDaemon(daemon, tool string) string {
	dir, _ := filepath.Split(daemon)
	return dir + tool
}

// clientPort stands for the port that a client's kernel chooses. No rule of the lab
// matches it.
const clientPort = 49152

// explainBy explains probes by the running policy, over the whole path between both ends.
func explainBy(snapshot func() *topology.Snapshot) func(lab.Result) (networkSecurityGroup, rule string, allowed bool) {
	return func(r lab.Result) (string, string, bool) {
		s := snapshot()
		flow := azure.Flow{Protocol: labProtocol(r.Protocol, r.Source.Family())}
		source, destination := ownerOf(s, r.Source.Address), ownerOf(s, r.Destination.Address)
		local, remote := r.Source.Address, r.Destination.Address
		flow.Direction, flow.NetworkInterface = ruleset.Outbound, source
		flow.LocalPort, flow.RemotePort = clientPort, r.Port
		if source == "" { // the internet has no NIC: ask for the other end
			local, remote = remote, local
			flow.Direction, flow.NetworkInterface = ruleset.Inbound, destination
			flow.LocalPort, flow.RemotePort = r.Port, clientPort
		}
		flow.Local, flow.Remote = local, remote
		result, err := ask.Verify(s, &flow, true)
		if err != nil {
			return "", err.Error(), false
		}
		if result.RuleName == "" {
			return "", result.Reason, result.Access == ruleset.Allow.String()
		}
		return result.NetworkSecurityGroup, result.RuleName, result.Access == ruleset.Allow.String()
	}
}

func labProtocol(p lab.Protocol, f lab.Family) uint8 {
	switch {
	case p == lab.TCP:
		return packet.ProtoTCP
	case p == lab.UDP:
		return packet.ProtoUDP
	case f == lab.IPv6:
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

// ownerOf returns the id of the NIC that has an address; empty when none has.
func ownerOf(s *topology.Snapshot, address netip.Addr) string {
	for _, nic := range s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			if nic.IPConfigurations[i].Address == address {
				return nic.ID
			}
		}
	}
	return ""
}
