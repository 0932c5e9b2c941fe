package main

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/denylog"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/platform"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/nsgd/nsgd/tun"
	"go.yaml.in/yaml/v3"
)

// validator collects every fault of a configuration.
type validator struct {
	file   string
	root   *yaml.Node
	faults []error
}

// fail records a fault of the value at path, a list of keys and indexes.
func (v *validator) fail(path []any, format string, args ...any) {
	where := v.file
	if line := lineOf(v.root, path); line > 0 {
		where += ":" + strconv.Itoa(line)
	}
	v.faults = append(v.faults, fmt.Errorf("%s: %s: %s", where, fieldName(path), fmt.Sprintf(format, args...)))
}

// lineOf finds the line of the value at path, or of the nearest thing around it.
func lineOf(n *yaml.Node, path []any) int {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	for _, step := range path {
		next := child(n, step)
		if next == nil {
			break
		}
		n = next
	}
	return n.Line
}

func child(n *yaml.Node, step any) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step]
		}
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	}
	return nil
}

// fieldName spells a path as attachments[2].device.
func fieldName(path []any) string {
	var b strings.Builder
	for _, step := range path {
		switch step := step.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", step)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(step)
		}
	}
	return b.String()
}

func at(path ...any) []any { return path }

func (v *validator) config(c *Config) {
	if c.Cluster != nil {
		v.cluster(c)
	} else if len(c.Policy) == 0 {
		v.fail(at("policy"), "missing: at least one file or folder of ARM JSON is needed")
	}
	for i, p := range c.Policy {
		if p == "" {
			v.fail(at("policy", i), "empty: a file or folder of ARM JSON is needed")
		}
	}
	v.bounds(at("workers"), c.Workers, 0, tun.MaxQueues, "0 means one per CPU")
	if _, err := tun.ParseOffload(c.Offload); err != nil {
		v.fail(at("offload"), "%q: allowed are auto, tso and off", c.Offload)
	}
	if !slices.Contains([]string{"", windowOn, windowOff}, c.TCPWindow) {
		v.fail(at("tcpWindow"), "%q: allowed are on and off", c.TCPWindow)
	}
	v.bounds(at("flows", "max"), c.Flows.Max, 0, conntrack.MaxFlows, "0 means 1000000")
	v.bounds(at("flows", "maxPerNetworkInterface"), c.Flows.MaxPerNetworkInterface, 0, conntrack.MaxFlows, "0 means 500000")
	v.bounds(at("flows", "newPerSecond"), c.Flows.NewPerSecond, 0, conntrack.MaxNewPerSecond, "0 means any number")
	v.bounds(at("fragments", "max"), c.Fragments.Max, 0, fragment.MaxDatagrams, "0 means 16384")
	v.bounds(at("fragments", "hold"), c.Fragments.Hold, 0, fragment.MaxHold, "0 means that none waits")
	v.bounds(at("denyLog", "perSecond"), c.DenyLog.PerSecond, 0, denylog.MaxPerSecond, "0 means none")
	if d := c.History.keep(); d != 0 && (d < history.MinKeep || d > history.MaxKeep) {
		v.fail(at("history", "keep"), "%v: allowed are %v to %v, and 0s, which remembers nothing", d, history.MinKeep, history.MaxKeep)
	}
	v.timeouts(&c.Timeouts)
	v.meaning(c)
	v.metrics(&c.Metrics)
	v.console(c)
	v.log(&c.Log)
	if len(c.Control.Socket) > control.MaxSocketPath {
		v.fail(at("control", "socket"), "%q: a unix socket's path has at most %d bytes", c.Control.Socket, control.MaxSocketPath)
	}
	if _, allowed := controlModes[c.Control.Mode]; !allowed && c.Control.Mode != "" {
		v.fail(at("control", "mode"), "%q: allowed are 0600, 0660 and 0666", c.Control.Mode)
	}
	if n, err := strconv.Atoi(c.Control.Group); err == nil && (n < 0 || n > math.MaxInt32) {
		v.fail(at("control", "group"), "%d: allowed are a group's name, and 0 to %d", n, math.MaxInt32)
	}
	v.remoteControl(&c.Control)
	if len(c.Attachments) == 0 {
		v.fail(at("attachments"), "missing: at least one attachment is needed")
	}
	if len(c.Attachments) > dataplane.MaxAttachments {
		v.fail(at("attachments"), "%d attachments: at most %d", len(c.Attachments), dataplane.MaxAttachments)
	}
	v.attachments(c.Attachments)
	v.flowLogs(c)
}

// meaning checks what a generation of a cluster has too: how the policy is understood.
func (v *validator) meaning(c *Config) {
	if d := time.Duration(c.Templates.Timeout); d < 0 || d > arm.MaxTimeout {
		v.fail(at("templates", "timeout"), "%v: allowed are 0s to %v; 0s is the default, %v", d, arm.MaxTimeout, template.DefaultTimeout)
	}
	if a := c.DefaultOutboundAddress; a.IsValid() && (!a.Is4() || !a.IsGlobalUnicast()) {
		v.fail(at("defaultOutboundAddress"), "%s: allowed is an IPv4 address that a host can have", a)
	}
	subscription := c.Platform.subscription()
	if key, err := subscription.Check(); err != nil {
		v.fail(at("platform", key), "%v", err)
	}
}

func (c *PlatformConfig) subscription() topology.Subscription {
	return topology.Subscription{Type: c.Subscription, CreatedBefore20171115: c.CreatedBefore20171115, SMTPExempt: c.SMTPExempt}
}

func (v *validator) bounds(path []any, value, low, high int, zero string) {
	if value < low || value > high {
		v.fail(path, "%d: allowed are %d to %d, %s", value, low, high, zero)
	}
}

func (v *validator) timeouts(t *TimeoutsConfig) {
	for _, field := range []struct {
		key   string
		value Duration
	}{
		{"tcpSyn", t.TCPSyn}, {"tcpEstablished", t.TCPEstablished}, {"tcpClosing", t.TCPClosing},
		{"tcpTimeWait", t.TCPTimeWait}, {"tcpReset", t.TCPReset}, {"udpOneWay", t.UDPOneWay},
		{"udpTwoWay", t.UDPTwoWay}, {"icmp", t.ICMP}, {"other", t.Other}, {"fragment", t.Fragment}, {"translation", t.Translation},
	} {
		given := child(v.timeoutsNode(), field.key) != nil
		if d := time.Duration(field.value); given && (d < conntrack.TickLength || d > conntrack.MaxTimeout) {
			v.fail(at("timeouts", field.key), "%v: allowed are %v to %v", d, conntrack.TickLength, conntrack.MaxTimeout)
		}
	}
}

// timeoutsNode tells a timeout that is given as 0s, a fault, from an absent one.
func (v *validator) timeoutsNode() *yaml.Node {
	if len(v.root.Content) > 0 {
		if n := child(v.root.Content[0], "timeouts"); n != nil {
			return n
		}
	}
	return &yaml.Node{}
}

func (v *validator) metrics(c *MetricsConfig) {
	if c.Listen == metricsOff {
		return
	}
	if err := checkListen(c.Listen); err != nil {
		v.fail(at("metrics", "listen"), "%q: allowed is HOST:PORT with a numeric port, or %s", c.Listen, metricsOff)
	}
	if c.Pprof && c.open() {
		v.fail(at("metrics", "pprof"), "true: profiles show what is in memory, and %s is open to others: set metrics.webConfig, or a loopback address as metrics.listen", c.Listen)
	}
}

// open reports that others than this host's users may ask, and anybody of them.
func (c *MetricsConfig) open() bool {
	host, _, _ := net.SplitHostPort(c.Listen)
	return c.WebConfig == "" && host != "localhost" && !net.ParseIP(host).IsLoopback()
}

func (v *validator) attachments(list []AttachmentConfig) {
	type place struct{ netns, device string }
	taken, before := map[place]int{}, map[place]int{}
	for i := range list {
		a := &list[i]
		v.attachment(i, a)
		p := place{a.Netns, a.Device}
		if first, dup := taken[p]; dup && a.Device != "" {
			v.fail(at("attachments", i, "device"), "%q: attachments[%d] has a device of that name in the same namespace", a.Device, first)
		}
		taken[p] = i
		if !a.standsBefore() {
			continue
		}
		p.device = cmp.Or(a.Interface, a.guest())
		if first, dup := before[p]; dup {
			v.fail(at("attachments", i, a.found()), "%q: attachments[%d] stands before it already", p.device, first)
		}
		before[p] = i
	}
	beside := (&Config{Attachments: list}).beforeInterfaces()
	for i := range list {
		v.beforeInterface(i, &list[i], beside[i])
	}
}

// beforeInterface checks an attachment before an interface that exists, or of the rest beside one.
func (v *validator) beforeInterface(i int, a *AttachmentConfig, beside bool) {
	if !a.standsBefore() {
		if a.Host || a.Wait || a.DHCP || a.DefaultGateway || a.DHCPClient.HardwareAddr != nil {
			v.fail(at("attachments", i), "host, wait, dhcp, defaultGateway and dhcpClient are for an attachment with interface, bridge or container")
		}
		if beside && len(a.Addresses) > 0 {
			v.fail(at("attachments", i, "addresses"), "%s: beside an attachment with interface in the same namespace this device has none: the host's own interfaces have addresses", a.Addresses[0])
		}
		return
	}
	if a.DHCP && a.Host {
		v.fail(at("attachments", i, "dhcp"), "true: it is for a guest; this host asks its own network")
	}
	if a.DefaultGateway && !a.DHCP {
		v.fail(at("attachments", i, "defaultGateway"), "true: it needs dhcp: true")
	}
	if a.DHCPClient.HardwareAddr != nil && !a.DHCP {
		v.fail(at("attachments", i, "dhcpClient"), "%s: it needs dhcp: true", a.DHCPClient)
	}
	if a.NetworkInterface == "" {
		v.fail(at("attachments", i, a.found()), "%q: it is for a networkInterface", cmp.Or(a.Interface, a.Container, a.Bridge))
	}
	v.foundPort(i, a)
	if a.Interface == a.Device && a.Interface != "" {
		v.fail(at("attachments", i, "interface"), "%q: device is nsgd's own, beside the interface: another name is needed", a.Interface)
	}
	if a.Create {
		v.fail(at("attachments", i, "create"), "true: a new namespace has no interface %q", cmp.Or(a.Interface, a.Bridge))
	}
	if a.MTU != 0 {
		v.fail(at("attachments", i, "mtu"), "%d: the interface has one: leave mtu out", a.MTU)
	}
}

// found is the key that says which interface it is.
func (a *AttachmentConfig) found() string {
	switch {
	case a.Interface != "":
		return "interface"
	case a.Container != "":
		return "container"
	}
	return "bridge"
}

// foundPort checks what tells an interface.
func (v *validator) foundPort(i int, a *AttachmentConfig) {
	if a.Interface != "" {
		if err := tun.CheckDeviceName(a.Interface); err != nil {
			v.fail(at("attachments", i, "interface"), "%v", err)
		}
		if a.Bridge != "" {
			v.fail(at("attachments", i, a.found()), "%q: the guest's interface has one name: leave bridge and container out, or interface", a.Interface)
		}
		return
	}
	if err := tun.CheckDeviceName(a.Bridge); err != nil {
		v.fail(at("attachments", i, "bridge"), "%v", err)
	}
	if a.Container != "" && !containerName.MatchString(a.Container) {
		v.fail(at("attachments", i, "container"), "%q: allowed are letters, digits and _.-, as Docker has them", a.Container)
	}
	if a.Host {
		v.fail(at("attachments", i, "host"), "true: this host is behind an interface with a name: interface is needed")
	}
	if a.DHCP {
		v.fail(at("attachments", i, "dhcp"), "true: it answers at an interface with a name: interface is needed")
	}
}

// containerName is what Docker and podman allow.
var containerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func (v *validator) attachment(i int, a *AttachmentConfig) {
	kinds := 0
	for _, set := range []bool{a.NetworkInterface != "", a.Subnet != "", a.Internet, a.Platform, a.Gateway != ""} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		v.fail(at("attachments", i), "%d of networkInterface, subnet, internet, platform and gateway are set: exactly one is needed", kinds)
	}
	if a.Device == "" {
		v.fail(at("attachments", i, "device"), "missing: the name of the interface in the namespace is needed")
	} else if err := tun.CheckDeviceName(a.Device); err != nil {
		v.fail(at("attachments", i, "device"), "%v", err)
	}
	if a.Create && a.Netns == "" {
		v.fail(at("attachments", i, "create"), "true: netns, the name of the namespace to create, is missing")
	}
	if a.Netns != "" {
		if err := tun.CheckNamespaceName(a.Netns); err != nil {
			v.fail(at("attachments", i, "netns"), "%v", err)
		} else if a.Create && !tun.IsCreatable(a.Netns) {
			v.fail(at("attachments", i, "create"), "true: netns is %q: only a namespace with a name can be made", a.Netns)
		}
	}
	low := tun.MinMTU
	for _, p := range a.Addresses {
		if p.Addr().Is6() {
			low = tun.MinMTU6
		}
	}
	if a.MTU != 0 && (a.MTU < low || a.MTU > tun.MaxMTU) {
		v.fail(at("attachments", i, "mtu"), "%d: allowed are %d to %d", a.MTU, low, tun.MaxMTU)
	}
	v.addresses(i, a)
	v.prefixes(i, a)
	v.platformServices(i, a)
}

// platformServices checks what answers at the platform's device.
func (v *validator) platformServices(i int, a *AttachmentConfig) {
	if a.PlatformServices && !a.Platform {
		v.fail(at("attachments", i, "platformServices"), "true: it is for the attachment with platform: true")
	}
	if len(a.DNSForwarders) > 0 && !a.PlatformServices {
		v.fail(at("attachments", i, "dnsForwarders"), "%s: they need platformServices: true", a.DNSForwarders[0])
	}
	if len(a.DNSForwarders) > platform.MaxForwarders {
		v.fail(at("attachments", i, "dnsForwarders"), "%d addresses: at most %d", len(a.DNSForwarders), platform.MaxForwarders)
	}
	for j, f := range a.DNSForwarders {
		if f.IsUnspecified() || f.IsMulticast() || slices.Contains(topology.PlatformAddresses, f.Addr) {
			v.fail(at("attachments", i, "dnsForwarders", j), "%s: allowed is the address of a resolver other than the platform", f)
		}
	}
}

// noHosts are ranges without hosts: nobody sends from there (packet.Addr.IsReserved).
var noHosts = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("ff00::/8"),
}

// prefixes are those of the networks behind a gateway, or of senders outside.
func (v *validator) prefixes(i int, a *AttachmentConfig) {
	switch {
	case a.Gateway != "" && len(a.Prefixes) == 0:
		v.fail(at("attachments", i, "prefixes"), "missing: a gateway needs the prefixes of the networks behind it")
	case a.Gateway == "" && !a.Internet && len(a.Prefixes) > 0:
		v.fail(at("attachments", i, "prefixes"), "%s: they are for a gateway and for the internet", a.Prefixes[0])
	}
	if a.ReachPrivate && !a.Internet {
		v.fail(at("attachments", i, "reachPrivate"), "true: it is for the internet")
	}
	for j, p := range a.Prefixes {
		if p.Prefix != p.Masked() {
			v.fail(at("attachments", i, "prefixes", j), "%s: host bits are set; the network is %s", p, p.Masked())
		}
		if a.Internet && slices.ContainsFunc(noHosts, p.Overlaps) {
			v.fail(at("attachments", i, "prefixes", j), "%s: nobody sends from all of it; allowed are prefixes without addresses of %v", p, noHosts)
		}
		for _, other := range a.Prefixes[:j] {
			if other == p {
				v.fail(at("attachments", i, "prefixes", j), "%s: listed twice", p)
			}
		}
	}
}

func (v *validator) addresses(i int, a *AttachmentConfig) {
	if a.NetworkInterface != "" && len(a.Addresses) > 0 {
		v.fail(at("attachments", i, "addresses"), "%s: a network interface's addresses come from the policy", a.Addresses[0])
	}
	seen := map[netip.Addr]bool{}
	for j, p := range a.Addresses {
		switch addr := p.Addr(); {
		case !addr.IsGlobalUnicast() || addr.Is4In6():
			v.fail(at("attachments", i, "addresses", j), "%s: not an address that a host can have", p)
		case seen[addr]:
			v.fail(at("attachments", i, "addresses", j), "%s: listed twice", p)
		}
		seen[p.Addr()] = true
	}
}
