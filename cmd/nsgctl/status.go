package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newStatus) }

func newStatus(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the daemon does",
		Example: `  nsgctl status
  nsgctl status --query flows.live`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			status, err := g.client().Status(c.Context())
			return show(c, g, status, err, statusTable)
		},
	}
}

func statusTable(w io.Writer, s *inspect.Status) error {
	facts := newGrid(w)
	facts.row("version", s.Version)
	facts.row("pid", s.PID)
	facts.row("started", s.Started.Format(time.RFC3339))
	facts.row("workers", s.Workers)
	facts.row("offload", s.Offload)
	if s.ControlListen != "" {
		facts.row("control", s.ControlListen)
	}
	facts.row("metrics", s.Metrics)
	facts.row("policy", strings.Join(s.Policy, " "))
	if tags := s.ServiceTags; tags != nil {
		facts.row("service tags", edition(tags))
		if w := s.ServiceTagsWritten; w != nil {
			facts.row("written", fmt.Sprintf("%s, %s ago", w.Format(time.RFC3339), plural(int(time.Since(*w)/(24*time.Hour)), "day")))
		}
	}
	facts.row("generation", s.Generation)
	facts.row("reloads", fmt.Sprintf("%d succeeded, %d failed", s.Reloads.Succeeded, s.Reloads.Failed))
	if s.Reloads.Last != nil {
		facts.row("last reload", fmt.Sprintf("%s by %s, id %s", s.Reloads.Last.Format(time.RFC3339), s.Reloads.LastCause, s.Reloads.LastID))
	}
	if by := s.Reloads.ConfirmBy; by != nil {
		facts.row("taken back", fmt.Sprintf("at %s, unless nsgctl confirm comes", by.Format(time.RFC3339)))
	}
	if s.Reloads.LastError != "" {
		first, _, _ := strings.Cut(s.Reloads.LastError, "\n")
		facts.row("refused for", first)
	}
	facts.row("flows", fmt.Sprintf("%d of %d, %d created", s.Flows.Live, s.Flows.Limit, s.Flows.Created))
	facts.row("fragments", fmt.Sprintf("%d datagrams of %d, %d held", s.Fragments.Datagrams, s.Fragments.Limit, s.Fragments.Held))
	if l := s.FlowLogs; l != nil {
		facts.row("flow logs", fmt.Sprintf("%d rows, %d lost, %d errors, %d bytes of files", l.Rows, l.Lost, l.Errors, l.Size))
		if l.LostDenied > 0 || l.LostRoom > 0 || l.DeletedFiles > 0 {
			facts.row("left out", fmt.Sprintf("%d denied packets without a row, %d rows without room, %d files deleted for room",
				l.LostDenied, l.LostRoom, l.DeletedFiles))
		}
	}
	clusterFacts(facts, s.Cluster)
	if s.Unkept != "" {
		facts.row("outlive it", "no flows: "+s.Unkept)
	}
	switch s.Standby {
	case "":
	case "none":
		facts.row("standby", "none: should nsgd fail, packets wait for another start. nsgctl reload prepares one; the log of nsgd keep says why there is none")
	default:
		facts.row("standby", s.Standby)
	}
	if s.Unprobed != "" {
		facts.row("health probes", s.Unprobed)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
		facts.row("dropped", fmt.Sprintf("%d %s", s.Dropped[reason], reason))
	}
	if err := facts.flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	table := newGrid(w, "ATTACHMENT", "NAMESPACE", "DEVICE", "ADDRESSES", "RECEIVED", "TRANSMITTED")
	for i := range s.Attachments {
		a := &s.Attachments[i]
		table.row(a.Name, a.Namespace, a.Device, several(a.Addresses), a.ReceivePackets, a.TransmitPackets)
	}
	if err := table.flush(); err != nil {
		return err
	}
	if err := interfacesTable(w, s.Interfaces); err != nil || len(s.Backends) == 0 {
		return err
	}
	return backendsTable(w, s.Backends)
}

// interfacesTable shows the interfaces before which the daemon stands.
func interfacesTable(w io.Writer, list []inspect.InterfaceStatus) error {
	if len(list) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	table := newGrid(w, "INTERFACE", "NAMESPACE", "STATE", "MAC", "PASSED", "CAPTURED OUT", "CAPTURED IN", "DELIVERED", "SENT ON", "DROPPED")
	for i := range list {
		f := &list[i]
		var drops []string
		for _, reason := range slices.Sorted(maps.Keys(f.Dropped)) {
			drops = append(drops, fmt.Sprintf("%d %s", f.Dropped[reason], reason))
		}
		name := f.Interface
		if f.Guest != "" {
			name = strings.TrimSpace(f.Interface + " (" + f.Guest + ")")
		}
		table.row(name, f.Namespace, f.State, f.MAC, f.Passed, f.CapturedOut, f.CapturedIn, f.Delivered, f.SentOn, strings.Join(drops, ", "))
	}
	if err := table.flush(); err != nil {
		return err
	}
	if err := guestsTable(w, list); err != nil {
		return err
	}
	return dhcpTable(w, list)
}

// guestsTable shows which addresses guests use, when there was traffic, and what is wrong.
func guestsTable(w io.Writer, list []inspect.InterfaceStatus) error {
	fmt.Fprintln(w)
	table := newGrid(w, "BEHIND", "ADDRESSES", "STRANGERS", "LAST OUT", "LAST IN", "TROUBLE")
	for i := range list {
		f := &list[i]
		if f.State == "" { // of the rest
			continue
		}
		var addresses, strangers []string
		for _, a := range f.Addresses {
			text := a.String()
			if !slices.Contains(f.Used, a) {
				text += " (unused)"
			}
			addresses = append(addresses, text)
		}
		for _, a := range f.Strangers {
			strangers = append(strangers, a.String())
		}
		table.row(f.Interface, strings.Join(addresses, ", "), strings.Join(strangers, ", "), timeOfDay(f.LastOut), timeOfDay(f.LastIn), f.Trouble)
	}
	return table.flush()
}

func timeOfDay(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.TimeOnly)
}

// dhcpTable shows the interfaces whose guests nsgd tells their addresses.
func dhcpTable(w io.Writer, list []inspect.InterfaceStatus) error {
	answered := slices.DeleteFunc(slices.Clone(list), func(f inspect.InterfaceStatus) bool { return f.DHCP == nil })
	if len(answered) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	table := newGrid(w, "DHCP ON", "NAMESPACE", "ANSWERED", "IGNORED", "LIMITED")
	for _, f := range answered {
		table.row(f.Interface, f.Namespace, f.DHCP.Answered, f.DHCP.Ignored, f.DHCP.Limited)
	}
	return table.flush()
}

func backendsTable(w io.Writer, list []inspect.Backend) error {
	fmt.Fprintln(w)
	table := newGrid(w, "LOAD BALANCER", "PROBE", "BACKEND", "HEALTH", "SINCE", "REASON")
	for i := range list {
		b := &list[i]
		health, since := "down", ""
		if b.Up {
			health = "up"
		}
		if b.Since != nil {
			since = b.Since.Format(time.RFC3339)
		}
		table.row(b.LoadBalancer, b.Probe+" "+b.Protocol, b.NetworkInterface+" "+inspect.Endpoint(b.Address, b.Port), health, since, b.Reason)
	}
	return table.flush()
}
