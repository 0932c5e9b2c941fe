package inspect

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Replaced is the State of an interface that may be open.
const Replaced = "replaced"

// InterfaceStatus is an interface before which nsgd stands, or a device of the rest beside it.
type InterfaceStatus struct {
	Interface string `json:"interface"`
	// Guest is the container, or the bridge and the network interface, whose interface was found. Interface is empty
	// while it is not. Absent for an interface that the configuration names.
	Guest     string `json:"guest,omitempty"`
	Namespace string `json:"namespace,omitempty"` // absent: the daemon's own
	// State is attached, waiting (the interface is missing), down, or replaced: somebody changed nsgd's filters or came
	// before them, and the interface may be open. Absent for a device of the rest.
	State string `json:"state,omitempty"`
	// MAC of the guest; absent: it has not spoken yet.
	MAC string `json:"mac,omitempty"`
	// Trouble says what is wrong; absent: nothing is.
	Trouble string `json:"trouble,omitempty"`
	// Addresses are the policy's, Used those that the guest has sent from. Strangers are up to 16 others that it sends
	// from: nsgd drops their packets.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Used      []netip.Addr `json:"used,omitempty"`
	Strangers []netip.Addr `json:"strangers,omitempty"`
	// LastOut is when nsgd got a packet from the guest, LastIn when the guest got one from nsgd, to two seconds; absent:
	// not since the daemon started.
	LastOut *time.Time `json:"lastOut,omitempty"`
	LastIn  *time.Time `json:"lastIn,omitempty"`
	// Passed counts frames that nsgd doesn't judge, such as ARP. CapturedOut and CapturedIn went to nsgd, from the
	// guest and to it. Delivered and SentOn are what nsgd let pass, to the guest and from it.
	Passed      uint64 `json:"passed"`
	CapturedOut uint64 `json:"capturedOut"`
	CapturedIn  uint64 `json:"capturedIn"`
	Delivered   uint64 `json:"delivered"`
	SentOn      uint64 `json:"sentOn"`
	// Dropped counts frames that never reached nsgd, by reason. A reason without a frame is absent.
	Dropped map[string]uint64 `json:"dropped"`
	// DHCP is what nsgd answered the guest; absent where it answers nothing.
	DHCP *DHCPUse `json:"dhcp,omitempty"`
}

// DHCPUse counts a guest's questions for DHCP and the gateway since nsgd began to answer them.
type DHCPUse struct {
	Answered uint64 `json:"answered"`
	Ignored  uint64 `json:"ignored"` // not understood, or not to be answered
	Limited  uint64 `json:"limited"` // dropped unread: more than the interface's share
}

// Upgraded is the answer to an upgrade.
type Upgraded struct {
	PID int `json:"pid"` // of the process that goes on
}

// Upgrade has another process go on with the flows and the devices. It returns once that process is prepared.
func (s *Service) Upgrade(ctx context.Context) (*Upgraded, error) {
	if s.options.Upgrade == nil {
		return nil, errors.New("this program can't be upgraded while it runs")
	}
	// The next process reads the files as they are, and would not take a reload back.
	s.loading.Lock()
	err := s.refuseChange()
	s.upgrading = s.upgrading || err == nil
	s.loading.Unlock()
	if err != nil {
		return nil, err
	}
	upgraded, err := s.options.Upgrade(ctx)
	if err != nil {
		s.loading.Lock()
		s.upgrading = false
		s.loading.Unlock()
	}
	return upgraded, err
}
