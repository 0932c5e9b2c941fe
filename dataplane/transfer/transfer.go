// Package transfer takes the flows of a network interface from one host's engine to another's.
//
// Its records travel in the images of conntrack, with what their numbers mean behind them: zones and rule slots are each
// host's own. Each end of a flow has its record on its own host. So a record of two ends that lived on one host
// splits, and where its ends meet on the new host the two become one.
//
// Whoever sends a transfer had the network interface, and may say anything about its flows. Nothing that comes in speaks
// for an end of the host that it comes to: see Transfer.Arrive.
package transfer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// Head says what the numbers in the records mean.
type Head struct {
	// NetworkInterface is the id in lower case.
	NetworkInterface string `json:"networkInterface"`
	// Host is the sender's name.
	Host string `json:"host"`
	// Now is the sender's time, in ticks.
	Now conntrack.Tick `json:"now"`
	// Flows are those in the images.
	Flows int `json:"flows"`
	// Zones and Rules are those that flows have.
	Zones list[Zone] `json:"zones"`
	Rules list[Rule] `json:"rules"`
}

// list is an array of JSON of at most maxList elements: empty ones take far more memory than text.
type list[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *list[T]) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		if begin == nil && err == nil { // null, as Write has it for none
			return nil
		}
		return fmt.Errorf("%.20s: an array is needed", text)
	}
	for d.More() {
		if len(*l) == maxList {
			return fmt.Errorf("more than %d elements in an array", maxList)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return err
		}
		*l = append(*l, one)
	}
	return nil
}

// Kind is what a zone is to the network interface.
type Kind string

// The kinds.
const (
	Own       Kind = "own"       // the network interface itself
	Far       Kind = "far"       // its far zone: ends on other hosts
	Near      Kind = "near"      // another end of the sender
	Internet  Kind = "internet"  // the sender's
	Elsewhere Kind = "elsewhere" // the internet of another host, Host
	Left      Kind = "left"      // what no flow is taken along to: each host has a platform of its own
)

// Zone is a zone of the sender.
type Zone struct {
	Zone uint16 `json:"zone"`
	Kind Kind   `json:"kind"`
	Host string `json:"host,omitempty"`
}

// Rule is what a slot of the sender means.
type Rule struct {
	Slot uint32           `json:"slot"`
	Key  topology.RuleKey `json:"key"`
}

// A transfer is a row of parts: a byte that says what it is, its length in four bytes, big endian, and so many bytes. Images come
// first, then the head.
const (
	partImage, partHead = 'I', 'H'
	// maxImage and maxHead bound a part, in bytes.
	maxImage, maxHead = 8 << 20, 16 << 20
	// maxPerFlow bounds the bytes of all images by their flows, and beyond this by what an image has besides: those of this
	// version have 224 bytes each.
	maxPerFlow = 1024
	// maxList bounds the zones and the rules of a head.
	maxList = 1 << 16
)

func writePart(w io.Writer, kind byte, content []byte) error {
	var head [5]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(content)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func readPart(r io.Reader) (kind byte, content []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("transfer: it ends early: %w", err)
	}
	size, most := binary.BigEndian.Uint32(head[1:]), uint32(maxImage)
	if head[0] == partHead {
		most = maxHead
	}
	if head[0] != partHead && head[0] != partImage || size > most {
		return 0, nil, fmt.Errorf("transfer: part %q of %d bytes: allowed are %q up to %d and %q up to %d", head[0], size, partImage, maxImage, partHead, maxHead)
	}
	content, err = readAll(r, int(size))
	if err != nil {
		return 0, nil, fmt.Errorf("transfer: it ends early: %w", err)
	}
	return head[0], content, nil
}

// readAll reads so many bytes. Memory grows with what has come, whatever was announced.
func readAll(r io.Reader, size int) ([]byte, error) {
	content := make([]byte, 0, min(size, 64<<10))
	for len(content) < size {
		if len(content) == cap(content) {
			content = append(make([]byte, 0, min(size, 2*cap(content))), content...)
		}
		n, err := io.ReadFull(r, content[len(content):cap(content)])
		if content = content[:len(content)+n]; err != nil {
			return nil, err
		}
	}
	return content, nil
}

// Transfer is what has come of another host. Nothing of it is in an engine before Arrive.
type Transfer struct {
	Head
	images [][]byte
	zones  map[uint16]Zone
	rules  map[uint32]topology.RuleKey
}

// Read reads a transfer of at most so many flows of a network interface that host sends, and checks it as a whole. It reads
// no byte behind it.
func Read(r io.Reader, nic, host string, most int) (*Transfer, error) {
	t := &Transfer{zones: map[uint16]Zone{}, rules: map[uint32]topology.RuleKey{}}
	flows, size := 0, 0
	for {
		kind, content, err := readPart(r)
		if err != nil {
			return nil, err
		}
		if kind == partHead {
			if err := json.Unmarshal(content, &t.Head); err != nil {
				return nil, fmt.Errorf("transfer: head: %w", err)
			}
			break
		}
		n, err := conntrack.CheckTransfer(content)
		if err != nil {
			return nil, err
		}
		flows, size = flows+n, size+len(content)
		if n == 0 || flows > most || size > maxImage+flows*maxPerFlow {
			return nil, fmt.Errorf("transfer: an image of %d flows and %d bytes after %d flows: allowed are 1 to %d flows in all, and %d bytes each", n, len(content), flows-n, most, maxPerFlow)
		}
		t.images = append(t.images, content)
	}
	switch {
	case t.Flows != flows:
		return nil, fmt.Errorf("transfer: %d flows: the head says %d", flows, t.Flows)
	case t.NetworkInterface != nic || t.Host != host:
		return nil, fmt.Errorf("transfer: of network interface %q from host %q: wanted is %q from %q", t.NetworkInterface, t.Host, nic, host)
	}
	for _, z := range t.Zones {
		t.zones[z.Zone] = z
	}
	for _, rule := range t.Rules {
		t.rules[rule.Slot] = rule.Key
	}
	return t, nil
}

// ErrNotAttached says that a network interface is not attached to the engine.
var ErrNotAttached = errors.New("transfer: the network interface is not attached here")

// find is the attachment of a network interface in a snapshot; nil: it has none.
func find(s *topology.Snapshot, nic string) *topology.Attachment {
	spec := topology.Spec{Kind: topology.NetworkInterface, Reference: nic}
	identity := spec.Identity(s.Policy)
	for _, a := range s.Attachments {
		if a.Kind == topology.NetworkInterface && strings.EqualFold(a.Identity(), identity) {
			return a
		}
	}
	return nil
}
