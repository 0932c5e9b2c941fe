package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// Head is the committed generation. Only who holds the offer writes it.
type Head struct {
	Current uint64          `json:"current"`
	Bundle  generation.Hash `json:"bundle"`
	By      string          `json:"by"`
	When    time.Time       `json:"when"` // by the clock of By
}

// Offer is an apply under way. It is under the lease of who applies, so that it ends with them.
type Offer struct {
	Generation uint64 `json:"generation"`
	// Bundle is what it consists of.
	Bundle generation.Hash `json:"bundle"`
	// Offered says that the generation is written, and hosts are to prepare it.
	Offered bool `json:"offered"`
	// Canary are hosts that carry it before the others.
	Canary []string  `json:"canary,omitempty"`
	By     string    `json:"by"`
	Since  time.Time `json:"since"` // by the clock of By
}

// HostRecord is what a host says of itself to all others, under its lease. Every host reads every one: what changes often
// is in Report.
type HostRecord struct {
	// Underlay and Port are where its tunnels end; MTU is that of the underlay's interface, 0 where it is not known.
	Underlay netip.Addr `json:"underlay"`
	Port     uint16     `json:"port"`
	MTU      int        `json:"mtu"`
	Version  string     `json:"version"`
	// Probes says that it sends health probes: its HealthRecord then says which backends of its own are up. Others are.
	Probes bool `json:"probes"`
	// Internet says that it has an attachment with internet: true.
	Internet bool `json:"internet"`
	// Gateways are the networks behind the gateways that it attaches, by the virtual network's id in lower case.
	Gateways map[string][]netip.Prefix `json:"gateways,omitempty"`
	// Control is ADDRESS:PORT where it answers nsgctl; empty: nowhere.
	Control string `json:"control,omitempty"`
	// Lease is in seconds.
	Lease int64 `json:"lease"`
	// Mover is the hash of the certificate by which it hands network interfaces over; empty: it can't.
	Mover string `json:"mover,omitempty"`
	// Moves are those that it takes part in, by the network interface's id in lower case.
	Moves map[string]MoveState `json:"moves,omitempty"`
}

// Report is what a host carries and what is wrong with it, under its lease. Other hosts don't read it.
type Report struct {
	// Generation is what it carries, Committed the highest that it knows to be committed; 0: none.
	Generation uint64 `json:"generation"`
	Committed  uint64 `json:"committed"`
	// Bundle is what Committed consists of: an etcd that was emptied may give its number to another generation. Zero: none.
	Bundle generation.Hash `json:"bundle,omitzero"`
	// Offer is the offer that Prepared and Refused are of, by its revision in etcd; 0: none.
	Offer int64 `json:"offer,omitempty"`
	// Prepared is the offered generation that it could carry; 0: none.
	Prepared uint64 `json:"prepared,omitempty"`
	// Refused says which one it can't carry and why.
	Refused *Refusal `json:"refused,omitempty"`
	// Faults are what is wrong now, in words.
	Faults []string `json:"faults,omitempty"`
}

// Refusal is why a host does not carry a generation.
type Refusal struct {
	Generation uint64 `json:"generation"`
	Fault      string `json:"fault"`
}

// ClaimRecord says where a network interface is. It outlives the host's registration: the host may carry by it for another Lease.
type ClaimRecord struct {
	Host string `json:"host"`
	// Epoch is that of the host's registration.
	Epoch int64 `json:"epoch"`
	// Lease is that of the host, in seconds.
	Lease int64 `json:"lease"`
}

// length is how long the host may carry after its registration has gone, whatever the record says.
func (r *ClaimRecord) length() time.Duration {
	return time.Duration(min(max(r.Lease, int64(MinLease/time.Second)), int64(MaxLease/time.Second))) * time.Second
}

// Age tells an etcd that was emptied to those who come later and have not seen it before.
type Age struct {
	// ID is random: one that was emptied, and has grown beyond what it was, has another one.
	ID string `json:"id"`
	// Whole says that every claim by which somebody may carry is in etcd.
	Whole bool `json:"whole"`
}

// same reports that two are of one etcd, as far as one knows.
func (g *Age) same(later *Age) bool { return g == nil || later != nil && g.ID == later.ID }

const (
	// maxRecord bounds a record in etcd, in bytes.
	maxRecord = 64 << 10
	// maxFault bounds a fault in a record, in bytes; maxFaults how many there are.
	maxFault, maxFaults = 2048, 8
	// maxText bounds a fault in a record as JSON, in bytes, where a byte may take six: a report takes one more, its refusal.
	maxText = maxRecord / (maxFaults + 2)
)

// decode reads a record, whoever wrote it.
func decode(key string, value []byte, into any) error {
	if len(value) > maxRecord {
		return fmt.Errorf("%s: %d bytes: at most %d", key, len(value), maxRecord)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// encode writes a record. Records are of types that JSON has.
func encode(record any) string {
	text, err := json.Marshal(record)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// inBrief cuts a fault to what a record takes.
func inBrief(err error) string {
	text := err.Error()
	if brief := cut(text[:min(len(text), maxFault)], maxText-len("...")); brief != text {
		return brief + "..."
	}
	return text
}

// cut is the beginning of a text that takes some bytes at most as JSON.
func cut(text string, most int) string {
	for len(encode(text)) > most {
		text = text[:len(text)*3/4]
	}
	return text
}
