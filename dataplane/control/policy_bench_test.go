package control_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

// BenchmarkPolicyAtScale loads and reloads a policy of 500 NICs and 100 NSGs with 1,000 rules each. One rule in ten names a
// tag, of all tags in the service tag file. `bench-net -groups 1000` does the same with a daemon and ten times as many.
func BenchmarkPolicyAtScale(b *testing.B) {
	dir, tags := b.TempDir(), armtest.ServiceTags(b)
	whole, err := arm.ReadServiceTags(tags)
	if err != nil {
		b.Fatal(err)
	}
	p := armtest.Policy{Groups: 100, Rules: 1000, Interfaces: 500, TagEvery: 10}
	for _, tag := range whole.All() {
		p.Tags = append(p.Tags, tag.Name)
	}
	policy, tagFile := filepath.Join(dir, "policy"), filepath.Join(dir, "tags.json")
	text, err := os.ReadFile(tags)
	if err != nil {
		b.Fatal(err)
	}
	if err := os.Mkdir(policy, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := p.Write(policy); err != nil {
		b.Fatal(err)
	}
	writeTags := func(i int) { // one tag gets another prefix
		changed := bytes.Replace(text, []byte(`"addressPrefixes": [`), fmt.Appendf(nil, `"addressPrefixes": ["198.51.%d.0/24", `, i%2), 1)
		if bytes.Equal(changed, text) {
			b.Fatalf("%s has no prefixes", tags)
		}
		if err := os.WriteFile(tagFile, changed, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	writeTags(0)
	attached := []topology.Spec{{Kind: topology.NetworkInterface, Reference: armtest.InterfaceName(0)}, {Kind: topology.Internet}}
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set, err := inspect.NewPolicyFiles(tagFile, policy).Load()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := topology.Build(set, attached, topology.NewRegistry()); err != nil {
				b.Fatal(err)
			}
		}
	})
	before := liveHeap()
	service, _ := benchServiceOf(b, policy, tagFile, attached)
	b.Run("reload/nothing changed", func(b *testing.B) {
		reloads(b, service, func(int) {})
		b.ReportMetric(float64(liveHeap()-before)/1e6, "MB-live")
	})
	b.Run("reload/one rule changed", func(b *testing.B) {
		file := armtest.GroupFile(policy, 7)
		reloads(b, service, func(i int) { changeRule(b, file, i) })
	})
	b.Run("reload/an interface came or went", func(b *testing.B) {
		file := armtest.InterfaceFile(policy, p.Interfaces)
		reloads(b, service, func(i int) {
			if os.Remove(file) == nil {
				return
			}
			if err := os.WriteFile(file, p.Interface(p.Interfaces), 0o644); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("reload/the tag file changed", func(b *testing.B) {
		reloads(b, service, func(i int) { writeTags(i + 1) })
	})
}

// liveHeap is how many bytes of the heap are in use.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
