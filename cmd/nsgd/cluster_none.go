//go:build nocluster

package main

import (
	"context"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/prometheus/client_golang/prometheus"
)

// member is the daemon's part in a cluster, which this nsgd was built without.
type member struct{}

// cluster refuses a place in a cluster.
func (v *validator) cluster(*Config) {
	v.fail(at("cluster"), "this nsgd was built without clusters, with the tag nocluster: leave it out, or take another nsgd")
}

func lastShare(path string) (s *share, trouble, err error) {
	_, err = loadConfig(path)
	return &share{}, nil, err
}

func (d *daemon) openMember() error { return nil }

func (*member) join(*daemon) error                      { return nil }
func (*member) run(context.Context) error               { return nil }
func (*member) wants(*Config, *policy.Set)              {}
func (*member) joins() func(*Config, *policy.Set, bool) { return nil }
func (d *daemon) fence()                                {}
func (*member) settle(*Config, *policy.Set) error       { return nil }
func (*member) close(*Config, *policy.Set, map[string]bool) (func() error, error) {
	return func() error { return nil }, nil
}
func (*member) generation(string) *generation.Unpacked { return nil }
func (*member) status() *inspect.ClusterStatus         { return nil }
func (*member) beyond(*policy.Set) []topology.Spec     { return nil }
func (*member) hosts() (*inspect.ClusterHosts, error)  { return nil, inspect.ErrNoCluster }
func (*member) healthChanged()                         {}
func (*member) collectors() []prometheus.Collector     { return nil }
