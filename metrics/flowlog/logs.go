package flowlog

import (
	"cmp"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Version is a kind of flow log.
type Version uint8

// The versions.
const (
	NSG  Version = iota // network security group flow logs, version 2
	VNet                // virtual network flow logs, version 4
	numVersions
)

var versionNames = [numVersions]string{"nsg2", "vnet4"}

// String is the configuration's word.
func (v Version) String() string { return versionNames[v] }

// ParseVersion reads the configuration's word.
func ParseVersion(text string) (Version, error) {
	for v, name := range versionNames {
		if text == name {
			return Version(v), nil
		}
	}
	return 0, fmt.Errorf("%q: allowed are %s", text, strings.Join(versionNames[:], " and "))
}

// Log is one flow log to write.
type Log struct {
	Version Version
	// Target is what is logged, by name or id: for NSG a network security group, for VNet a
	// virtual network, a subnet or a network interface. If several logs of a version fit, the most
	// particular one has the rows. Empty: everything that no other log has.
	Target string
	// FromPolicy logs what the enabled flow logs of the policy's network watchers do, those of NSGs for
	// NSG and the others for VNet. Then Target is empty.
	FromPolicy bool
	// Folder holds the containers of the logs; empty: none is written.
	Folder string
	// MaxSize bounds the bytes of the files below Folder; 0: DefaultMaxSize. Logs with the same
	// folder have the same MaxSize. Rows of denied packets add 1/16 of it in an hour at most.
	MaxSize int64
	// Stdout also prints the records, one a line.
	Stdout bool
}

const (
	// DefaultMaxSize is used where Log.MaxSize is 0, in bytes.
	DefaultMaxSize = 1 << 30
	// MinMaxSize is the least Log.MaxSize of a configuration, in bytes.
	MinMaxSize = 4 << 20
	// MinInterval and MaxInterval bound Options.Interval in a configuration.
	MinInterval, MaxInterval = time.Second, time.Hour
)

// flowLog is a Log that runs.
type flowLog struct {
	Log
	sinks []*sink

	rows, bytes atomic.Uint64
}

// written counts a record that a sink has written.
func (l *flowLog) written(b *block) {
	l.rows.Add(b.rows)
	l.bytes.Add(uint64(len(b.record)))
}

// target is what a Log's Target means in a policy: the lower-case id of one resource.
type target struct {
	kind targetKind
	id   string
	name string // of the network watcher's flow log; empty: there is none
}

type targetKind uint8

// The kinds, from the least to the most particular.
const (
	everything targetKind = iota
	aNetwork
	aSubnet
	aGroup // a network security group
	anInterface
)

// newTarget is a target of a kind, with the id of a resource.
func newTarget(kind targetKind, id string) target { return target{kind: kind, id: strings.ToLower(id)} }

// resolve finds a Log's targets in a policy.
func (l *Log) resolve(policy *policy.Set) ([]target, error) {
	switch {
	case l.FromPolicy:
		return l.watched(policy), nil
	case l.Target == "":
		return []target{{}}, nil
	case l.Version == NSG:
		g, err := policy.NetworkSecurityGroup(l.Target)
		if err != nil {
			return nil, err
		}
		return []target{newTarget(aGroup, g.ID)}, nil
	}
	var found []target
	v, networkErr := policy.VirtualNetwork(l.Target)
	if networkErr == nil {
		found = append(found, newTarget(aNetwork, v.ID))
	}
	if s, err := policy.Subnet(l.Target); err == nil {
		found = append(found, newTarget(aSubnet, s.ID))
	}
	if n, err := policy.NetworkInterface(l.Target); err == nil {
		found = append(found, newTarget(anInterface, n.ID))
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%q is no virtual network, subnet or network interface of the policy; as a virtual network: %w", l.Target, networkErr)
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("%q: several resources have that name, of which %s is one: use the id", l.Target, found[0].id)
}

// watched are the targets of the policy's own flow logs.
func (l *Log) watched(policy *policy.Set) (found []target) {
	for _, log := range policy.FlowLogs {
		var t target
		switch {
		case log.NetworkSecurityGroup != nil:
			t = newTarget(aGroup, log.NetworkSecurityGroup.ID)
		case log.VirtualNetwork != nil:
			t = newTarget(aNetwork, log.VirtualNetwork.ID)
		case log.Subnet != nil:
			t = newTarget(aSubnet, log.Subnet.ID)
		default:
			t = newTarget(anInterface, log.NetworkInterface.ID)
		}
		if t.name = log.Name; (t.kind == aGroup) == (l.Version == NSG) {
			found = append(found, t)
		}
	}
	return found
}

// Check finds out whether logs fit a policy: it has their targets, and no two logs share one. The
// error names the log by its index.
func Check(policy *policy.Set, logs []Log) error {
	seen := map[target]int{}
	for i := range logs {
		targets, err := logs[i].resolve(policy)
		if err != nil {
			return fmt.Errorf("flowLogs[%d].target: %w", i, err)
		}
		for _, t := range targets {
			if logs[i].Version == NSG && t.kind == everything {
				t.id = versionNames[NSG] // differs from everything of the other version
			}
			t.name = ""
			if first, dup := seen[t]; dup && first != i {
				return fmt.Errorf("flowLogs[%d].target: %q: flowLogs[%d] logs that already", i, cmp.Or(logs[i].Target, t.id), first)
			}
			seen[t] = i
		}
	}
	return nil
}
