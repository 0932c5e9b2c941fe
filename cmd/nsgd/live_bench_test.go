package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

// manyAttached writes a policy of n network interfaces and a configuration that attaches the first of them.
func manyAttached(t testing.TB, dir string, n, attached int) (config string) {
	t.Helper()
	var nics strings.Builder
	config = "policy: [many.json]\nattachments:\n"
	for i := range n {
		fmt.Fprintf(&nics, `,{"type":"Microsoft.Network/networkInterfaces","id":"/nic/n%d","name":"n%[1]d","properties":{"ipConfigurations":[{"name":"c","properties":
			{"privateIPAddress":"10.1.%d.%d","subnet":{"id":"/vnet/v/subnets/s"}}}]}}`, i, i/200, 4+i%200)
		if i < attached {
			config += fmt.Sprintf("- {networkInterface: n%d, netns: n%[1]d, create: true, device: eth0}\n", i)
		}
	}
	const subnets = `{"type":"Microsoft.Network/virtualNetworks","id":"/vnet/v","name":"v","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},
		"subnets":[{"id":"/vnet/v/subnets/s","name":"s","properties":{"addressPrefix":"10.1.0.0/16"}}]}}`
	if err := os.WriteFile(filepath.Join(dir, "many.json"), []byte("["+subnets+nics.String()+"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config + "metrics: {listen: \"off\"}\n"
}

// BenchmarkReloadAddsTheHundredthAttachment reloads a configuration that has one attachment more. Devices are in memory:
// what the kernel takes to make one comes on top.
func BenchmarkReloadAddsTheHundredthAttachment(b *testing.B) {
	dir := b.TempDir()
	with, without := manyAttached(b, dir, 100, 100), manyAttached(b, dir, 100, 99)
	r := newLiveRigOf(b, dir, without)
	for b.Loop() {
		r.write(with)
		reloaded, err := r.service.Reload(inspect.ReloadRequest{})
		if err != nil {
			b.Fatal(err)
		}
		if reloaded.Attachments == nil || reloaded.Attachments.String() != "attached n99" {
			b.Fatalf("changes %v", reloaded.Attachments)
		}
		b.StopTimer()
		r.write(without)
		if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkReloadOfOneRule reloads after one of 50 files of groups has changed, beside Microsoft's service tags when they
// are there.
func BenchmarkReloadOfOneRule(b *testing.B) {
	dir := b.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		b.Fatal(err)
	}
	const groups, rules = 48, 12
	policy := filepath.Join(dir, "policy")
	armtest.WriteGroups(b, policy, groups, rules)
	r := newLiveRigOf(b, dir, liveConfig+"serviceTags: "+armtest.ServiceTags(b)+"\n")
	for i := 0; b.Loop(); i++ {
		document := string(armtest.Group(0, rules))
		if i%2 == 0 {
			document = strings.Replace(document, `"20001"`, `"30001"`, 1)
		}
		if err := os.WriteFile(armtest.GroupFile(policy, 0), []byte(document), 0o600); err != nil {
			b.Fatal(err)
		}
		if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}
