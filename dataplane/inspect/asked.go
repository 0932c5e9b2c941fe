package inspect

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// asked is the policy in force with all ends of the cluster, as it was asked last.
type asked struct {
	mu       sync.Mutex // also lets one question at a time build it
	of       *topology.Snapshot
	beyond   []topology.Spec
	snapshot *topology.Snapshot
}

// Asked is the policy in force for questions. In a cluster it leads to all ends of all hosts, also to those that no packet
// of this host may go to, so that every host gives the same answer.
func (s *Service) Asked() (*topology.Snapshot, error) {
	live := s.Snapshot()
	if s.options.Beyond == nil {
		return live, nil
	}
	beyond := s.options.Beyond(live.Policy)
	if len(beyond) == 0 {
		return live, nil
	}
	a := &s.asked
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == live && reflect.DeepEqual(a.beyond, beyond) {
		return a.snapshot, nil
	}
	snapshot, err := s.options.Engine.Candidate(live.Policy, beyond...)
	if err != nil {
		return nil, fmt.Errorf("networks of which this host carries nothing: %w", err)
	}
	a.of, a.beyond, a.snapshot = live, beyond, snapshot
	return snapshot, nil
}

// other is another policy for questions, as Asked is the one in force.
func (s *Service) other(set *policy.Set) (*topology.Snapshot, error) {
	if s.options.Beyond == nil {
		return s.options.Engine.Candidate(set)
	}
	return s.options.Engine.Candidate(set, s.options.Beyond(set)...)
}

// ErrNoCluster says that there are no other hosts to ask.
var ErrNoCluster = errors.New("this daemon is in no cluster: its nsgd.yaml lacks the key cluster")

// ClusterHosts are the hosts of a cluster, as the one that was asked knows them.
type ClusterHosts struct {
	// Host is the name of the one that was asked.
	Host string `json:"host"`
	// Hosts are those alive, in the order of their names, the one that was asked among them.
	Hosts []ClusterHost `json:"hosts"`
}

// ClusterHost is a host of a cluster.
type ClusterHost struct {
	Name string `json:"name"`
	// Control is ADDRESS:PORT of its control.listen; absent when it has none.
	Control string `json:"control,omitempty"`
}

// Hosts lists the hosts of the cluster. The error is ErrNoCluster, or why the others are not known.
func (s *Service) Hosts() (*ClusterHosts, error) {
	if s.options.Hosts == nil {
		return nil, ErrNoCluster
	}
	return s.options.Hosts()
}
