//go:build !nocluster

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
)

func TestNothingIsCarriedBeforeTheKernelCarries(t *testing.T) {
	var until time.Duration
	g := &gate{engine: func(u time.Duration) { until = u }}
	g.fence(5)
	if until != 5 {
		t.Errorf("until %v while it is open", until)
	}
	g.shut(errors.New("no such address"))
	g.fence(7)
	if until != 0 || !strings.Contains(g.faults()[0], "no such address") {
		t.Errorf("until %v, %v", until, g.faults())
	}
	g.open()
	if until != 7 || len(g.faults()) != 0 {
		t.Errorf("until %v, %v", until, g.faults())
	}
}

// What the cluster asks for does not wait for whoever is editing the configuration.
func TestTheClusterDoesNotReadTheConfigurationAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nsgd.yaml")
	text := "cluster: {endpoints: [\"http://127.0.0.1:1\"], host: a, underlay: 192.0.2.1}\nattachments:\n- {networkInterface: nic1, netns: n, device: eth0}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &live{ctx: context.Background(), path: path, file: c}
	if err := os.WriteFile(path, []byte("cluster: {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := l.load(path, inspect.Edit{Placed: true}, nil, &share{}); err != nil || all.file.Cluster.Host != "a" {
		t.Errorf("the cluster: %v", err)
	}
	if _, err := l.load(path, inspect.Edit{}, nil, &share{}); err == nil {
		t.Error("a reload takes a broken file")
	}
	cache, err := generation.OpenCache(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	var read []*loaded
	for _, number := range []uint64{1, 1, 2} { // tried, carried, and another one
		all, err := l.load(path, inspect.Edit{Generation: "g"}, nil, &share{generation: unpack(t, cache, number)})
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, all)
	}
	if read[0].policy != read[1].policy || read[1].policy == read[2].policy || read[1].files == read[2].files {
		t.Error("what was tried is read again, or what was not is not")
	}
	l.file, l.files, l.share = read[2].file, read[2].files, *read[2].share
	l.snapshot = func() *topology.Snapshot { return &topology.Snapshot{Policy: read[2].policy} }
	all, err := l.load(path, inspect.Edit{NetworkInterfaces: []string{}}, &loaded{file: l.file, files: l.files}, read[2].share)
	if err != nil || all.policy != read[2].policy {
		t.Errorf("network interfaces come, and the policy is read again: %v", err)
	}
}

// unpack makes a generation.
func unpack(t *testing.T, cache *generation.Cache, number uint64) *generation.Unpacked {
	t.Helper()
	b := generation.Bundle{Settings: generation.Settings{Policy: []string{"policy"}}, Files: map[string][]byte{"policy/a.json": []byte(`{"name":"nsg","id":"/subscriptions/0/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/nsg","type":"Microsoft.Network/networkSecurityGroups","properties":{"securityRules":[]}}`)}}
	packed, err := b.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := &generation.Manifest{Number: number, Who: "test", Version: "test"}
	m.Describe(packed)
	sealed, err := m.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, err := cache.Put(sealed, packed.Compressed)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
