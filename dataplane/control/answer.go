package control

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Status is the answer of /v1/status.
type Status struct {
	Version     string       `json:"version"`
	PID         int          `json:"pid"`
	Started     time.Time    `json:"started"`
	Workers     int          `json:"workers"`
	Offload     string       `json:"offload"`
	Control     string       `json:"control"`               // the socket's path
	Metrics     string       `json:"metrics,omitempty"`     // host:port; absent when off
	Policy      []string     `json:"policy"`                // files and folders
	ServiceTags *ServiceTags `json:"serviceTags,omitempty"` // absent without a service tag file
	Generation  uint64       `json:"generation"`            // counts the policies of this process from 1
	Reloads     Reloads      `json:"reloads"`
	Flows       FlowUse      `json:"flows"`
	Fragments   FragmentUse  `json:"fragments"`
	FlowLogs    *FlowLogUse  `json:"flowLogs,omitempty"` // absent without flow logs
	// Dropped are the packets not carried, by reason; reasons without one are absent.
	Dropped     map[string]uint64  `json:"dropped"`
	Attachments []AttachmentStatus `json:"attachments"`
	// Backends are those that load balancers probe; absent without one.
	Backends []Backend `json:"backends,omitempty"`
	// Unprobed says why no probe is sent and backends count as up; absent when they are probed.
	Unprobed string `json:"unprobed,omitempty"`
}

// Backend is what a health probe has found out about one backend.
type Backend struct {
	LoadBalancer     string `json:"loadBalancer"`
	Probe            string `json:"probe"`
	NetworkInterface string `json:"networkInterface"`
	Address          string `json:"address"`
	Protocol         string `json:"protocol"` // Tcp, Http or Https
	Port             uint16 `json:"port"`
	// Up says whether the backend takes new flows.
	Up bool `json:"up"`
	// Since is when Up became what it is; absent when no probe is sent.
	Since *time.Time `json:"since,omitempty"`
	// Reason is why the last probe failed, or why none was sent; absent when it was answered.
	Reason string `json:"reason,omitempty"`
}

// Reloads counts reloads and tells how the last one went.
type Reloads struct {
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`
	// Last is when the last reload ended; absent when there was none.
	Last *time.Time `json:"last,omitempty"`
	// LastMilliseconds is how long it took.
	LastMilliseconds float64 `json:"lastMilliseconds,omitempty"`
	// Loaded is when the policy in force was loaded, by a reload or at the start.
	Loaded time.Time `json:"loaded"`
	// LastError is why the last reload was refused; absent when it was not.
	LastError string `json:"lastError,omitempty"`
}

// FlowUse is how full the flow table is.
type FlowUse struct {
	Live    int64  `json:"live"`
	Limit   int64  `json:"limit"`
	Created uint64 `json:"created"`
	// Translated are the live ones whose addresses or ports are translated.
	Translated int64 `json:"translated"`
}

// FragmentUse is how full the memory of fragmented datagrams is.
type FragmentUse struct {
	Datagrams int64 `json:"datagrams"`
	Limit     int   `json:"limit"`
	// Held are the fragments that wait for the first one of their datagram.
	Held int64 `json:"held"`
}

// FlowLogUse is how flow logs do.
type FlowLogUse struct {
	Rows   uint64 `json:"rows"` // written
	Lost   uint64 `json:"lost"` // rows
	Errors uint64 `json:"errors"`
	Size   int64  `json:"size"` // bytes of the files
}

// AttachmentStatus is one TUN device.
type AttachmentStatus struct {
	Name            string   `json:"name"`
	Kind            string   `json:"kind"` // networkInterface, subnet, internet, platform or gateway
	Device          string   `json:"device"`
	Namespace       string   `json:"namespace,omitempty"` // absent: the daemon's own
	MTU             int      `json:"mtu"`
	Addresses       []string `json:"addresses"`
	ReceivePackets  uint64   `json:"receivePackets"`
	ReceiveBytes    uint64   `json:"receiveBytes"`
	TransmitPackets uint64   `json:"transmitPackets"`
	TransmitBytes   uint64   `json:"transmitBytes"`
}

// RuleList is the answer of /v1/rules: the rules of the policy in force, by NSG and
// direction in the order in which they are tried.
type RuleList struct {
	Generation uint64 `json:"generation"`
	Rules      []Rule `json:"rules"`
}

// Rule is one security rule in the words of ARM.
type Rule struct {
	NetworkSecurityGroup string   `json:"networkSecurityGroup"` // its id where the name is not unique
	Direction            string   `json:"direction"`
	Priority             int      `json:"priority"`
	Name                 string   `json:"name"`
	RuleName             string   `json:"ruleName"` // securityRules/NAME or defaultSecurityRules/NAME
	Access               string   `json:"access"`
	Protocol             string   `json:"protocol"`
	Sources              []string `json:"sources"` // prefixes, tags, * or ids of application security or network groups
	SourcePorts          []string `json:"sourcePorts"`
	Destinations         []string `json:"destinations"`
	DestinationPorts     []string `json:"destinationPorts"`
	// Counters are absent in an answer without a daemon.
	Counters *RuleCounters `json:"counters,omitempty"`
}

// RuleCounters are nsgd_rule_{hits,packets,bytes}_total of the rule.
type RuleCounters struct {
	Hits    uint64 `json:"hits"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// FlowList is the answer of /v1/flows, in no particular order.
type FlowList struct {
	Flows []Flow `json:"flows"`
	// Truncated is set when more flows match than the limit let through.
	Truncated bool `json:"truncated"`
}

// Flow is one live flow. Source is the side that began it.
type Flow struct {
	Protocol string `json:"protocol"`
	Source   string `json:"source"`
	// SourcePort is the identifier for ICMP.
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
	// Translated is the flow as its destination sees it; absent when nothing is translated. The
	// rules of the destination's end have judged it so.
	Translated *FlowTuple `json:"translated,omitempty"`
	// DeliveredTo is the address of the backend that gets the packets as they are, with its load
	// balancer's address (floating IP); absent for others.
	DeliveredTo string `json:"deliveredTo,omitempty"`
	// From and To are the attachments of source and destination. A flow whose answers take another
	// way than its packets is two, one for each end, and the other end's name is empty.
	From             string `json:"from"`
	To               string `json:"to"`
	State            string `json:"state"`
	AgeMilliseconds  int64  `json:"ageMilliseconds"`
	IdleMilliseconds int64  `json:"idleMilliseconds"`
	// ExpiresInMilliseconds is when the flow ends if no packet comes.
	ExpiresInMilliseconds int64  `json:"expiresInMilliseconds"`
	PacketsSent           uint64 `json:"packetsSent"` // by the source
	BytesSent             uint64 `json:"bytesSent"`
	PacketsReceived       uint64 `json:"packetsReceived"` // by the source
	BytesReceived         uint64 `json:"bytesReceived"`
	// Rules allowed the flow, in the order of evaluation.
	Rules []FlowRule `json:"rules"`
	// PlatformService is the service of the platform for which the flow passed whatever the
	// NSGs say; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	// Generation is that of the policy by which the flow was judged last, or found to need no
	// new judgement.
	Generation uint32 `json:"generation"`
}

// FlowTuple are the addresses and ports of a packet, or of a flow's.
type FlowTuple struct {
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
}

// String is SOURCE>DESTINATION; ports that are 0 are left out.
func (t *FlowTuple) String() string {
	return Endpoint(t.Source, t.SourcePort) + ">" + Endpoint(t.Destination, t.DestinationPort)
}

// Endpoint is ADDRESS:PORT, or the address alone where the port is 0.
func Endpoint(address string, port uint16) string {
	if port == 0 {
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// Arrives says in words how the flow is as its destination sees it; empty where that is as it was sent.
func (f *Flow) Arrives() string {
	if t := f.Translated; t != nil {
		return Endpoint(t.Source, t.SourcePort) + " > " + Endpoint(t.Destination, t.DestinationPort)
	}
	if f.DeliveredTo != "" {
		return "the same, at " + f.DeliveredTo
	}
	return ""
}

// FlowRule names a rule that allowed a flow. The policy in force may lack it.
type FlowRule struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Direction            string `json:"direction"`
	Name                 string `json:"name"`
}

// Reloaded is the answer of /v1/reload.
type Reloaded struct {
	Generation uint64 `json:"generation"`
	PolicyCounts
	// ServiceTagChanges is what another service tag file changes for the rules that named
	// their tag before; absent when nothing.
	ServiceTagChanges *TagChanges `json:"serviceTagChanges,omitempty"`
}

// ServiceTags is the edition of the service tag file that the running policy uses.
type ServiceTags struct {
	File         string `json:"file"`
	ChangeNumber string `json:"changeNumber"` // Microsoft's, of the whole file; empty when it has none
	Cloud        string `json:"cloud"`
	Tags         int    `json:"tags"` // in the file, used or not
}

// PolicyCounts says how much a policy holds.
type PolicyCounts struct {
	NetworkSecurityGroups     int `json:"networkSecurityGroups"`
	SecurityRules             int `json:"securityRules"` // without the default rules
	VirtualNetworks           int `json:"virtualNetworks"`
	Subnets                   int `json:"subnets"`
	NetworkInterfaces         int `json:"networkInterfaces"`
	ApplicationSecurityGroups int `json:"applicationSecurityGroups"`
}

// CountPolicy counts a policy's objects.
func CountPolicy(set *policy.Set) PolicyCounts {
	c := PolicyCounts{
		NetworkSecurityGroups:     len(set.NetworkSecurityGroups),
		VirtualNetworks:           len(set.VirtualNetworks),
		NetworkInterfaces:         len(set.NetworkInterfaces),
		ApplicationSecurityGroups: len(set.ApplicationSecurityGroups),
	}
	for _, g := range set.NetworkSecurityGroups {
		c.SecurityRules += len(g.Rules)
	}
	for _, v := range set.VirtualNetworks {
		c.Subnets += len(v.Subnets)
	}
	return c
}

// String is the counts in words.
func (c PolicyCounts) String() string {
	one := func(n int, singular string) string {
		if n == 1 {
			return "1 " + singular
		}
		return fmt.Sprintf("%d %ss", n, singular)
	}
	return strings.Join([]string{
		one(c.NetworkSecurityGroups, "network security group"), one(c.SecurityRules, "security rule"),
		one(c.VirtualNetworks, "virtual network"), one(c.Subnets, "subnet"),
		one(c.NetworkInterfaces, "network interface"), one(c.ApplicationSecurityGroups, "application security group"),
	}, ", ")
}

// Verification is one line of a verify answer: a result, or an error.
type Verification struct {
	*azure.VerificationIPFlowResult
	// Error is why the request has no answer; the result is nil then.
	Error string `json:"error,omitempty"`
}

// Fault is a fault of a policy document; see ruleset.Fault.
type Fault struct {
	Code     string `json:"code"`
	File     string `json:"file,omitempty"`
	Resource string `json:"resource,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Field    string `json:"field,omitempty"`
	Value    string `json:"value,omitempty"`
	Message  string `json:"message"`
}

// Faults converts faults for JSON; the result is never nil.
func Faults(list ruleset.Faults) []Fault {
	faults := make([]Fault, len(list))
	for i, f := range list {
		faults[i] = Fault{Code: f.Code, File: f.File, Resource: f.Resource, Rule: f.Rule, Field: f.Field, Value: f.Value, Message: f.Message}
	}
	return faults
}
