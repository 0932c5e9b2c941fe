package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"go.yaml.in/yaml/v3"
)

// The values of Config.TCPWindow.
const (
	windowOn  = "on"
	windowOff = "off"
)

// Config is the daemon's configuration file. Every key is optional but policy and
// attachments; a key that is not listed here is an error.
type Config struct {
	// Policy are files and folders of ARM JSON; relative ones are relative to the
	// configuration file.
	Policy []string `yaml:"policy"`
	// ServiceTags is Microsoft's service tag file, relative to the configuration file; see arm.DefaultServiceTags.
	// Empty: rules name only the tags that need none.
	ServiceTags string `yaml:"serviceTags"`
	// Templates is what ARM templates among the policy's files are evaluated with.
	Templates TemplatesConfig `yaml:"templates"`
	// AllowPartial leaves out and logs template expressions that can't be evaluated, instead of
	// refusing the policy.
	AllowPartial bool `yaml:"allowPartial"`
	// Watch reloads when a file that is named here, or the configuration itself, has changed.
	Watch bool `yaml:"watch"`
	// Attachments in the order in which metrics and status list them.
	Attachments []AttachmentConfig `yaml:"attachments"`
	// ClosedAtBoot closes the interfaces of attachments also while no nsgd runs, as soon as they appear.
	ClosedAtBoot bool `yaml:"closedAtBoot"`
	// User is the daemon's user once its privileged part runs, a name or an id; empty: the user who started it.
	User string `yaml:"user"`
	// Workers is the number of packet workers; 0: one per CPU.
	Workers int `yaml:"workers"`
	// Offload is auto, tso or off.
	Offload   string          `yaml:"offload"`
	Flows     FlowsConfig     `yaml:"flows"`
	Fragments FragmentsConfig `yaml:"fragments"`
	Timeouts  TimeoutsConfig  `yaml:"timeouts"`
	// TCPStrict lets only a SYN create a TCP flow.
	TCPStrict bool `yaml:"tcpStrict"`
	// TCPWindow is on, which is the default, or off: whether TCP segments must fit their connection's windows to count there.
	TCPWindow string `yaml:"tcpWindow"`
	// AzureQuirks imitates Azure where it differs from its documents: see topology.Options.
	AzureQuirks bool `yaml:"azureQuirks"`
	// DefaultOutboundAddress is the public address of NICs without another way to the internet
	// (default outbound access). Absent: such NICs send from their private address.
	DefaultOutboundAddress Address       `yaml:"defaultOutboundAddress"`
	Metrics                MetricsConfig `yaml:"metrics"`
	// Console serves the console's pages where the metrics are.
	Console  bool           `yaml:"console"`
	Control  ControlConfig  `yaml:"control"`
	Log      LogConfig      `yaml:"log"`
	State    StateConfig    `yaml:"state"`
	Platform PlatformConfig `yaml:"platform"`
	DenyLog  DenyLogConfig  `yaml:"denyLog"`
	History  HistoryConfig  `yaml:"history"`
	// Cluster has many hosts carry one policy; absent: the policy is in files here.
	Cluster *ClusterConfig `yaml:"cluster"`
	joined  *joined        // to the other hosts; nil: nothing is
	// FlowLogs are Azure's logs of flows, none by default.
	FlowLogs []FlowLogConfig `yaml:"flowLogs"`
	// FlowLogInterval is how often they are written; 0: a minute. All logs share it, because the
	// recorder remembers once what a flow's rows have told.
	FlowLogInterval Duration `yaml:"flowLogInterval"`
}

// StateConfig is what outlives the machine's next start.
type StateConfig struct {
	// File holds flows and counters while nsgd is stopped, relative to the configuration file; empty: they end with it.
	File string `yaml:"file"`
}

// FlowLogConfig is one flow log, see flowlog.Log.
type FlowLogConfig struct {
	Version string `yaml:"version"` // nsg2 or vnet4
	Target  string `yaml:"target"`
	// FromPolicy has the policy's own flow logs as targets.
	FromPolicy bool `yaml:"fromPolicy"`
	// Folder is relative to the configuration file.
	Folder  string `yaml:"folder"`
	Stdout  bool   `yaml:"stdout"`
	MaxSize Size   `yaml:"maxSize"` // of Folder; 0: 1 GiB
}

// TemplatesConfig is the deployment that ARM templates are read as.
type TemplatesConfig struct {
	// Parameters are parameters files, relative to the configuration file, or
	// NAME=VALUE; the last value of a name holds.
	Parameters []string `yaml:"parameters"`
	// Subscription is an id, ResourceGroup a name, Location that of the group.
	Subscription  string `yaml:"subscription"`
	ResourceGroup string `yaml:"resourceGroup"`
	Location      string `yaml:"location"`
	// Runtime is a file of what only Azure knows, relative to the configuration file.
	Runtime string `yaml:"runtime"`
	// Timeout is how long the templates of one reading may take together; 0: 10 seconds.
	Timeout Duration `yaml:"timeout"`
}

// deployment is the configuration as the reader of documents takes it.
func (c *Config) deployment() arm.Deployment {
	t := &c.Templates
	return arm.Deployment{
		Parameters: t.Parameters, Subscription: t.Subscription, ResourceGroup: t.ResourceGroup, Location: t.Location,
		Runtime: t.Runtime, Partial: c.AllowPartial, Timeout: time.Duration(t.Timeout),
	}
}

// AttachmentConfig is one TUN device. Exactly one of NetworkInterface, Subnet,
// Internet, Platform and Gateway says what it stands for.
type AttachmentConfig struct {
	NetworkInterface string `yaml:"networkInterface"` // ARM name or id
	Subnet           string `yaml:"subnet"`           // name, vnet/name or id
	Internet         bool   `yaml:"internet"`
	Platform         bool   `yaml:"platform"`
	// PlatformServices has nsgd answer DNS and IMDS at Platform's addresses.
	PlatformServices bool `yaml:"platformServices"`
	// DNSForwarders are asked for names that aren't Azure's internal ones, from the daemon's namespace.
	DNSForwarders []Address `yaml:"dnsForwarders"`
	// Gateway is the virtual network, by ARM name or id, whose gateway leads to the on-premises
	// networks of Prefixes.
	Gateway string `yaml:"gateway"`
	// Prefixes are the networks behind a gateway. At the internet they may send too, besides
	// public addresses.
	Prefixes []Prefix `yaml:"prefixes"`
	// ReachPrivate lets the internet reach private addresses though the policy has public ones.
	ReachPrivate bool `yaml:"reachPrivate"`
	// Interface is one that exists already, a guest's in Netns: nsgd stands before it. Of networkInterface alone.
	Interface string `yaml:"interface"`
	// Bridge has the guest's interface as a port, in place of Interface: that of Container, or else the one behind
	// which somebody answers for the NIC's address.
	Bridge string `yaml:"bridge"`
	// Container is the name of Docker's or podman's whose interface it is, whatever its name. Bridge is docker0 if absent.
	Container string `yaml:"container"`
	// Host says that this host itself is behind Interface.
	Host bool `yaml:"host"`
	// Wait starts the daemon although Interface is missing.
	Wait bool `yaml:"wait"`
	// DHCP tells the guest behind Interface its addresses, as Azure does.
	DHCP bool `yaml:"dhcp"`
	// DefaultGateway has nsgd stand for the guest's gateway in ARP, neighbour discovery and router advertisements.
	DefaultGateway bool `yaml:"defaultGateway"`
	// DHCPClient is the only hardware address that is answered; absent: any.
	DHCPClient MAC `yaml:"dhcpClient"`
	// Netns is a network namespace: its name, its path or pid:N; empty: the daemon's own.
	Netns string `yaml:"netns"`
	// Create makes Netns, and removes it when the daemon stops.
	Create bool `yaml:"create"`
	// Device is the interface's name in that namespace.
	Device string `yaml:"device"`
	MTU    int    `yaml:"mtu"` // 0: 1500
	// Addresses of the device. A network interface's come from the policy.
	Addresses []Prefix       `yaml:"addresses"`
	fabric    *topology.Spec // to other hosts, which the cluster attaches; nil: it is of the file
}

// FlowsConfig bounds the flow table; zero values take the defaults.
type FlowsConfig struct {
	Max                    int `yaml:"max"`
	MaxPerNetworkInterface int `yaml:"maxPerNetworkInterface"`
	// NewPerSecond is how many flows may begin a second at one network interface; 0: any number.
	NewPerSecond int `yaml:"newPerSecond"`
}

// FragmentsConfig bounds the memory of fragmented datagrams; zero values take the defaults.
type FragmentsConfig struct {
	// Max is the number of datagrams that are followed at a time.
	Max int `yaml:"max"`
	// Hold is how many later fragments may wait for the first one of their datagram; 0:
	// they are dropped, as Azure does.
	Hold int `yaml:"hold"`
}

// PlatformConfig is the subscription, as far as Azure's platform treats subscriptions differently.
// Absent: an enterprise agreement, for which nothing is blocked.
type PlatformConfig struct {
	// Subscription is enterprise, payg, msdn or csp. TCP port 25 to the internet is blocked
	// with msdn, and with payg and csp unless one of the others is true.
	Subscription          string `yaml:"subscription"`
	CreatedBefore20171115 bool   `yaml:"createdBefore20171115"`
	SMTPExempt            bool   `yaml:"smtpExempt"`
}

// TimeoutsConfig are the idle timeouts of flows. Fragment is how long after its first packet a
// fragmented datagram is forgotten. Absent ones take the defaults.
type TimeoutsConfig struct {
	TCPSyn         Duration `yaml:"tcpSyn"`
	TCPEstablished Duration `yaml:"tcpEstablished"`
	TCPClosing     Duration `yaml:"tcpClosing"`
	TCPTimeWait    Duration `yaml:"tcpTimeWait"`
	TCPReset       Duration `yaml:"tcpReset"`
	UDPOneWay      Duration `yaml:"udpOneWay"`
	UDPTwoWay      Duration `yaml:"udpTwoWay"`
	ICMP           Duration `yaml:"icmp"`
	Other          Duration `yaml:"other"`
	Fragment       Duration `yaml:"fragment"`
	// Translation bounds the idle timeouts of public IPs, NAT gateways and load balancers.
	Translation Duration `yaml:"translation"`
}

// MetricsConfig says where /metrics is served.
type MetricsConfig struct {
	// Listen is host:port; "off" serves none.
	Listen string `yaml:"listen"`
	// WebConfig is a web configuration file of Prometheus, relative to the configuration file; empty: anybody may ask.
	WebConfig string `yaml:"webConfig"`
	// Pprof serves Go's profiles too.
	Pprof bool `yaml:"pprof"`
}

// HistoryConfig says what is remembered of dropped packets, ended flows and hits.
type HistoryConfig struct {
	// Keep is how long; absent: history.DefaultKeep, 0: nothing is remembered.
	Keep *Duration `yaml:"keep"`
}

// keep is how long is remembered; 0: nothing is.
func (h *HistoryConfig) keep() time.Duration {
	if h.Keep == nil {
		return history.DefaultKeep
	}
	return time.Duration(*h.Keep)
}

// DenyLogConfig says how many packets that rules deny are logged.
type DenyLogConfig struct {
	// PerSecond is how many denied packets are shown a second at most; 0: none.
	PerSecond int `yaml:"perSecond"`
}

// ControlConfig says where nsgctl finds the daemon.
type ControlConfig struct {
	// Socket is the unix socket's path. Its folder also holds the daemon's lock and
	// its journal of created namespaces.
	Socket string `yaml:"socket"`
	// Group may connect to the socket, a name or an id; empty: root's.
	Group string `yaml:"group"`
	// Mode of the socket; empty: 0660 with Group, else 0600.
	Mode string `yaml:"mode"`
	// Listen is host:port for nsgctl elsewhere, by TLS 1.3 with certificates on both sides; empty: there is none. The
	// files are relative to the configuration file.
	Listen      string `yaml:"listen"`
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	ClientCA    string `yaml:"clientCA"`  // who signs the certificates of clients
	ClientCRL   string `yaml:"clientCRL"` // lists of those that are revoked
	// MayChange are names of certificates: common names, or alternative names. Other clients may look.
	MayChange []string `yaml:"mayChange"`
}

// controlModes are the values of ControlConfig.Mode.
var controlModes = map[string]fs.FileMode{"0600": 0o600, "0660": 0o660, "0666": 0o666}

// access is who may connect to the socket.
func (c *ControlConfig) access() (a control.Access, err error) {
	a.Mode = controlModes[c.Mode]
	if c.Group == "" {
		return a, nil
	}
	a.Mode = controlModes[cmp.Or(c.Mode, "0660")]
	if a.Group, err = strconv.Atoi(c.Group); err == nil {
		return a, nil
	}
	group, err := user.LookupGroup(c.Group)
	if err != nil {
		return a, fmt.Errorf("control.group: %q: allowed is a group of this host, by name or number: %w", c.Group, err)
	}
	a.Group, err = strconv.Atoi(group.Gid)
	return a, err
}

const (
	defaultMetrics = "127.0.0.1:9646"
	defaultSocket  = "/run/nsgd/nsgd.sock"
	metricsOff     = "off"
	defaultBridge  = "docker0" // Docker's own
)

// loadConfig reads, completes and checks a configuration file. The error lists
// every fault, each with file and line.
func loadConfig(path string) (*Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (*Config, error) {
	c := &Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlFaults(path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: a second YAML document: only one is allowed", path)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, yamlFaults(path, err)
	}
	if err := c.complete(filepath.Dir(path)); err != nil {
		return nil, err
	}
	v := validator{file: path, root: &root}
	v.config(c)
	return c, errors.Join(v.faults...)
}

// complete fills in defaults and makes paths independent of the working directory.
func (c *Config) complete(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	absolute := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	for i, p := range c.Policy {
		if p != "" {
			c.Policy[i] = absolute(p)
		}
	}
	if c.Cluster == nil {
		c.ServiceTags = arm.DefaultServiceTags(c.ServiceTags)
	}
	if c.ServiceTags != "" {
		c.ServiceTags = absolute(c.ServiceTags)
	}
	for i, p := range c.Templates.Parameters {
		if !arm.IsAssignment(p) {
			c.Templates.Parameters[i] = absolute(p)
		}
	}
	if c.Templates.Runtime != "" {
		c.Templates.Runtime = absolute(c.Templates.Runtime)
	}
	for i := range c.FlowLogs {
		if f := &c.FlowLogs[i]; f.Folder != "" {
			f.Folder = filepath.Clean(absolute(f.Folder))
		}
	}
	if c.Metrics.Listen == "" {
		c.Metrics.Listen = defaultMetrics
	}
	if c.Metrics.WebConfig != "" {
		c.Metrics.WebConfig = absolute(c.Metrics.WebConfig)
	}
	if c.State.File != "" {
		c.State.File = absolute(c.State.File)
	}
	if c.Control.Socket == "" {
		c.Control.Socket = defaultSocket
	}
	c.Control.Socket = absolute(c.Control.Socket)
	for _, file := range []*string{&c.Control.Certificate, &c.Control.Key, &c.Control.ClientCA, &c.Control.ClientCRL} {
		if *file != "" {
			*file = absolute(*file)
		}
	}
	if c.Cluster != nil {
		c.Cluster.complete(absolute)
	}
	c.completeAttachments()
	return nil
}

func (c *Config) completeAttachments() {
	for i := range c.Attachments {
		a := &c.Attachments[i]
		if a.Platform && a.Device == "" {
			a.Device = "nsgd-platform"
		}
		if a.Container != "" && a.Bridge == "" {
			a.Bridge = defaultBridge
		}
	}
}

var (
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	yamlUnknown = regexp.MustCompile(`^field (\S+) not found in type main\.(\w+)$`)
)

// yamlFaults rewrites the yaml package's errors to file:line and the
// configuration's words instead of Go's types.
func yamlFaults(path string, err error) error {
	messages := []string{err.Error()}
	var typeError *yaml.TypeError
	if errors.As(err, &typeError) {
		messages = typeError.Errors
	}
	var faults []error
	for _, m := range messages {
		line := ""
		if found := yamlLine.FindStringSubmatch(m); found != nil {
			line, m = ":"+found[1], found[2]
		}
		if found := yamlUnknown.FindStringSubmatch(m); found != nil {
			m = fmt.Sprintf("unknown key %q: %s", found[1], allowedKeys(found[2]))
		}
		faults = append(faults, fmt.Errorf("%s%s: %s", path, line, strings.TrimPrefix(m, "yaml: ")))
	}
	return errors.Join(faults...)
}

// allowedKeys lists the keys of one of the configuration's structs.
func allowedKeys(structName string) string {
	for _, t := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[AttachmentConfig](), reflect.TypeFor[FlowsConfig](),
		reflect.TypeFor[FragmentsConfig](), reflect.TypeFor[TemplatesConfig](),
		reflect.TypeFor[TimeoutsConfig](), reflect.TypeFor[MetricsConfig](), reflect.TypeFor[ControlConfig](),
		reflect.TypeFor[PlatformConfig](), reflect.TypeFor[DenyLogConfig](), reflect.TypeFor[HistoryConfig](), reflect.TypeFor[FlowLogConfig](),
		reflect.TypeFor[LogConfig](), reflect.TypeFor[ClusterConfig](), reflect.TypeFor[ClusterTLSConfig](),
	} {
		if t.Name() != structName {
			continue
		}
		keys := make([]string, t.NumField())
		for i := range keys {
			keys[i] = t.Field(i).Tag.Get("yaml")
		}
		return "allowed are " + strings.Join(keys, ", ")
	}
	return "not allowed here"
}
