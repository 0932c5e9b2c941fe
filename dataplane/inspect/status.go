package inspect

import (
	"os"
	"slices"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Status is how a daemon does.
type Status struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Workers int       `json:"workers"`
	Offload string    `json:"offload"`
	Control string    `json:"control"` // the socket's path
	// ControlListen is where clients elsewhere are answered, host:port; absent when they are not.
	ControlListen string       `json:"controlListen,omitempty"`
	Metrics       string       `json:"metrics,omitempty"`     // host:port; absent when off
	Policy        []string     `json:"policy"`                // files and folders
	ServiceTags   *ServiceTags `json:"serviceTags,omitempty"` // absent without a service tag file
	// ServiceTagsWritten is when that file was last written.
	ServiceTagsWritten *time.Time  `json:"serviceTagsWritten,omitempty"`
	Generation         uint64      `json:"generation"` // counts the policies of this process from 1
	Reloads            Reloads     `json:"reloads"`
	Flows              FlowUse     `json:"flows"`
	Fragments          FragmentUse `json:"fragments"`
	FlowLogs           *FlowLogUse `json:"flowLogs,omitempty"` // absent without flow logs
	// Cluster is absent without one.
	Cluster *ClusterStatus `json:"cluster,omitempty"`
	// Dropped counts packets that were not carried, by reason. A reason without a packet is absent.
	Dropped     map[string]uint64  `json:"dropped"`
	Attachments []AttachmentStatus `json:"attachments"`
	// Interfaces are those before which the daemon stands; absent without one.
	Interfaces []InterfaceStatus `json:"interfaces,omitempty"`
	// Unkept says why flows and devices end with this process; absent when the next one finds them.
	Unkept string `json:"unkept,omitempty"`
	// Standby says what the process does that goes on at once when this one fails: none (there is none), preparing, prepared,
	// or unknown; absent without nsgd keep --standby.
	Standby string `json:"standby,omitempty"`
	// Backends are those that load balancers probe; absent without one.
	Backends []Backend `json:"backends,omitempty"`
	// Unprobed says why no probe is sent and backends count as up; absent when they are probed.
	Unprobed string `json:"unprobed,omitempty"`
}

// FlowUse is how full the flow table is.
type FlowUse struct {
	Live    int64  `json:"live"`
	Limit   int64  `json:"limit"`
	Created uint64 `json:"created"`
	// Translated counts the live flows whose addresses or ports are translated.
	Translated int64 `json:"translated"`
}

// FragmentUse is how full the memory of fragmented datagrams is.
type FragmentUse struct {
	Datagrams int64 `json:"datagrams"`
	Limit     int   `json:"limit"`
	// Held counts the fragments that wait for the first one of their datagram.
	Held int64 `json:"held"`
}

// FlowLogUse is how flow logs do.
type FlowLogUse struct {
	Rows   uint64 `json:"rows"` // written
	Lost   uint64 `json:"lost"` // rows, those below among them
	Errors uint64 `json:"errors"`
	Size   int64  `json:"size"` // bytes of the files
	// LostDenied are denied packets without a row, LostRoom rows without room in their folder.
	LostDenied uint64 `json:"lostDenied"`
	LostRoom   uint64 `json:"lostRoom"`
	// DeletedFiles counts the files of past hours that were deleted for room.
	DeletedFiles uint64 `json:"deletedFiles"`
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

// Status describes the daemon.
func (s *Service) Status() *Status {
	o, e := &s.options, s.options.Engine
	snapshot := e.Snapshot()
	status := &Status{
		Version: o.Version, PID: os.Getpid(), Started: s.started, Workers: e.Workers(), Offload: o.Offload,
		Control: o.Control, ControlListen: o.ControlListen, Metrics: o.Metrics, Policy: s.policyFiles().paths, ServiceTags: s.serviceTags(), Generation: snapshot.Generation,
		Reloads: s.Reloads(), Flows: flowUse(e.Flows()), Fragments: fragmentUse(e.Fragments()), Dropped: dropped(e), Unkept: o.Unkept,
	}
	if o.Standby != nil {
		status.Standby = o.Standby()
	}
	if o.FlowLogs != nil {
		status.FlowLogs = o.FlowLogs()
	}
	if o.Cluster != nil {
		status.Cluster = o.Cluster()
	}
	if o.Interfaces != nil {
		status.Interfaces = o.Interfaces()
	}
	if written := s.ServiceTagsWritten(); !written.IsZero() {
		status.ServiceTagsWritten = &written
	}
	status.Backends, status.Unprobed = s.backends(snapshot)
	status.Attachments = s.attachments(snapshot)
	return status
}

// attachments lists those that have a device, in the configuration's order.
func (s *Service) attachments(snapshot *topology.Snapshot) []AttachmentStatus {
	list, numbers := []AttachmentStatus{}, map[string]int{}
	counts := s.options.Engine.AttachmentCounts()
	for i, d := range s.options.Engine.Devices() {
		if d == nil || i >= len(snapshot.Attachments) || snapshot.Attachments[i].Kind == topology.Vacant { // a reload is under way
			continue
		}
		a, place := snapshot.Attachments[i], s.place(i)
		shown := AttachmentStatus{
			Name: a.Name, Kind: a.Kind.String(), Device: place.Device, Namespace: place.Namespace, MTU: d.MTU(),
			Addresses:      []string{},
			ReceivePackets: counts[i].ReceivePackets, ReceiveBytes: counts[i].ReceiveBytes,
			TransmitPackets: counts[i].TransmitPackets, TransmitBytes: counts[i].TransmitBytes,
		}
		for _, p := range DeviceAddresses(a, place.Addresses) {
			shown.Addresses = append(shown.Addresses, p.String())
		}
		list, numbers[a.Name] = append(list, shown), place.Number
	}
	slices.SortStableFunc(list, func(a, b AttachmentStatus) int { return numbers[a.Name] - numbers[b.Name] })
	return list
}

func flowUse(t *conntrack.Table) FlowUse {
	s := t.Stats()
	return FlowUse{Live: s.Flows, Limit: s.Limit, Created: s.Created, Translated: s.Translated}
}

func fragmentUse(t *fragment.Table) FragmentUse {
	return FragmentUse{Datagrams: t.Datagrams(), Limit: t.Limit(), Held: t.Held()}
}

func dropped(e *dataplane.Engine) map[string]uint64 {
	m := map[string]uint64{}
	for reason, n := range e.Drops() {
		if n > 0 {
			m[packet.Drop(reason).String()] = n
		}
	}
	return m
}

// ClusterStatus is how a host of a cluster does.
type ClusterStatus struct {
	Host string `json:"host"`
	// Connected says that etcd answers; Error says why it does not.
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
	// Registered says that the host has a lease. CarriesSeconds is for how long it may still carry: negative when it
	// carries nothing, absent with onLost: goOn, when it carries anyhow.
	Registered     bool     `json:"registered"`
	CarriesSeconds *float64 `json:"carriesSeconds,omitempty"`
	// Generation is the one that is carried, Current the one that etcd says is current, Offered an apply under way; 0: none.
	Generation uint64 `json:"generation"`
	Current    uint64 `json:"current"`
	Offered    uint64 `json:"offered,omitempty"`
	// Refused is a generation that this host can't carry, and RefusedFor why; absent when it refuses none.
	Refused    uint64 `json:"refused,omitempty"`
	RefusedFor string `json:"refusedFor,omitempty"`
	// Attached are the network interfaces that are carried here. Waiting are those of this host's configuration that
	// are not.
	Attached []string             `json:"attached"`
	Waiting  []WaitingForAttached `json:"waiting"`
	Faults   []string             `json:"faults"`
	// Reaches counts the network interfaces of other hosts that packets from here go to.
	Reaches int `json:"reaches"`
	// Hosts and Claims are those of the whole cluster.
	Hosts  int `json:"hosts"`
	Claims int `json:"claims"`
}

// WaitingForAttached is a network interface that is not attached here yet.
type WaitingForAttached struct {
	NetworkInterface string `json:"networkInterface"`
	// Host has claimed it; absent: nobody has.
	Host string `json:"host,omitempty"`
}
