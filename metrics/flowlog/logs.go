package flowlog

import (
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
}

type targetKind uint8

// The kinds, from the least to the most particular.
const (
	everything targetKind = iota
	aNetwork
	aSubnet
	aGroup // a network security group
	anInterface
	nothing // the policy has it no longer
)

// resolve finds a Log's target in a policy.
func (l *Log) resolve(policy *policy.Set) (target, error) {
	if l.Target == "" {
		return target{}, nil
	}
	if l.Version == NSG {
		g, err := policy.NetworkSecurityGroup(l.Target)
		if err != nil {
			return target{kind: nothing}, err
		}
		return target{aGroup, strings.ToLower(g.ID)}, nil
	}
	var found []target
	v, networkErr := policy.VirtualNetwork(l.Target)
	if networkErr == nil {
		found = append(found, target{aNetwork, strings.ToLower(v.ID)})
	}
	if s, err := policy.Subnet(l.Target); err == nil {
		found = append(found, target{aSubnet, strings.ToLower(s.ID)})
	}
	if n, err := policy.NetworkInterface(l.Target); err == nil {
		found = append(found, target{anInterface, strings.ToLower(n.ID)})
	}
	switch len(found) {
	case 0:
		return target{kind: nothing}, fmt.Errorf("%q is no virtual network, subnet or network interface of the policy; as a virtual network: %w", l.Target, networkErr)
	case 1:
		return found[0], nil
	}
	return target{kind: nothing}, fmt.Errorf("%q: several resources have that name, of which %s is one: use the id", l.Target, found[0].id)
}

// Check finds out whether logs fit a policy: it has their targets, and no two logs share one. The
// error names the log by its index.
func Check(policy *policy.Set, logs []Log) error {
	seen := map[target]int{}
	for i := range logs {
		t, err := logs[i].resolve(policy)
		if err != nil {
			return fmt.Errorf("flowLogs[%d].target: %w", i, err)
		}
		if logs[i].Version == NSG && t.kind == everything {
			t.id = versionNames[NSG] // differs from everything of the other version
		}
		if first, dup := seen[t]; dup {
			return fmt.Errorf("flowLogs[%d].target: %q: flowLogs[%d] logs that already", i, logs[i].Target, first)
		}
		seen[t] = i
	}
	return nil
}
