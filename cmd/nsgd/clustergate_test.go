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

	"github.com/nsgd/nsgd/dataplane/inspect"
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
}
