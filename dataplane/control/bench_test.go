package control_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

const benchGroups, benchRules = 50, 200

// benchPolicy writes the lab's policy and 50 NSGs of 200 rules that use the largest
// service tags.
func benchPolicy(b *testing.B) (policy, tags string) {
	b.Helper()
	dir := filepath.Join(b.TempDir(), "lab")
	if err := lab.WriteTo(dir); err != nil {
		b.Fatal(err)
	}
	policy = filepath.Join(dir, "policy")
	armtest.WriteGroups(b, policy, benchGroups, benchRules)
	return policy, armtest.ServiceTags(b)
}

// BenchmarkBuild measures what starting and reloading cost with the whole service tag
// file, from the files on disk to the snapshot that decides.
func BenchmarkBuild(b *testing.B) {
	policy, tags := benchPolicy(b)
	b.Run("cold", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set, err := inspect.NewPolicyFiles(tags, policy).Load()
			if err != nil {
				b.Fatal(err)
			}
			if _, err := topology.Build(set, specs, topology.NewRegistry()); err != nil {
				b.Fatal(err)
			}
		}
	})
	service, engine := benchServiceOf(b, policy, tags, specs)
	b.Run("reload/nothing changed", func(b *testing.B) { reloads(b, service, func(int) {}) })
	b.Run("reload/one rule changed", func(b *testing.B) {
		file := armtest.GroupFile(policy, 7)
		reloads(b, service, func(i int) { changeRule(b, file, i) })
	})
	b.Run("reload/one rule names another tag", func(b *testing.B) {
		file := armtest.GroupFile(policy, 7)
		reloads(b, service, func(i int) { changeTag(b, file, i) })
	})
	b.Run("reload/an address space changed, all recompile", func(b *testing.B) {
		file := armtest.NetworkFile(policy)
		reloads(b, service, func(i int) { widen(b, file, i) })
	})
	if n := len(engine.Snapshot().Groups); n != benchGroups+2 {
		b.Errorf("%d groups", n)
	}
}

func benchServiceOf(b *testing.B, policy, tags string, attachments []topology.Spec) (*inspect.Service, *dataplane.Engine) {
	b.Helper()
	files := inspect.NewPolicyFiles(tags, policy)
	set, err := files.Load()
	if err != nil {
		b.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Attachments: attachments, Workers: 1, Flows: conntrack.Options{Max: 1024}})
	if err != nil {
		b.Fatal(err)
	}
	return inspect.NewService(inspect.Options{Engine: engine, Policy: files}), engine
}

func reloads(b *testing.B, service *inspect.Service, change func(i int)) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		change(i)
		b.StartTimer()
		if _, err := service.Reload(inspect.ReloadRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

// changeRule gives a rule another port in every round.
func changeRule(b *testing.B, file string, i int) {
	replace(b, file, `"destinationPortRange": "20001"`, `"destinationPortRange": "30001"`, i)
}

// changeTag has a rule name a tag that no other rule names, in every other round.
func changeTag(b *testing.B, file string, i int) {
	replace(b, file, `"sourceAddressPrefix": "Sql"`, `"sourceAddressPrefix": "AppService"`, i)
}

func widen(b *testing.B, file string, i int) {
	replace(b, file, `"10.128.0.0/10"`, `"10.128.0.0/9"`, i)
}

func replace(b *testing.B, file, first, second string, i int) {
	b.Helper()
	if i%2 == 1 {
		first, second = second, first
	}
	text, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	changed := bytes.Replace(text, []byte(first), []byte(second), 1)
	if bytes.Equal(text, changed) {
		b.Fatalf("%s does not have %s", file, first)
	}
	if err := os.WriteFile(file, changed, 0o644); err != nil {
		b.Fatal(err)
	}
}
