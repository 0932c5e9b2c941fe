package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nsgd/nsgd"

// anyPackage stands for a room that may import everything of the module.
const anyPackage = "..."

// allowedImports is the architecture: each package and what it may import of
// this module, outside its tests. A line added here is a decision, not a fix;
// an import that would run upwards means that a type lives in the wrong room.
var allowedImports = map[string][]string{
	"dataplane/packet": {},
	"ruleset":          {},
	"tun":              {"dataplane/packet", "tun/folder", "tun/steer"}, // of packet the offsets of headers
	"tun/steer":        {"tun/program"},
	// What several packages give the kernel: programs, and tables of nftables.
	"tun/program":    nil,
	"tun/nft":        nil,
	"tun/objecttest": nil,
	"tun/folder":     {},
	// The programs before interfaces that exist; of tun namespaces and the devices that outlive a process.
	"tun/intercept": {"tun", "tun/nft", "tun/program"},
	// Carries packets between hosts by the kernel's VXLAN; of tun namespaces and devices.
	"tun/fabric":            {"tun", "tun/nft", "tun/program"},
	"tun/container":         {},
	"ruleset/policy":        {"ruleset"},
	"ruleset/azure":         {"ruleset", "ruleset/policy"},
	"ruleset/arm":           {"ruleset", "ruleset/policy", "ruleset/arm/jsonc", "ruleset/arm/template", "ruleset/arm/terraform"},
	"ruleset/arm/jsonc":     {},
	"ruleset/arm/template":  {"ruleset/arm/jsonc"},
	"ruleset/arm/terraform": {"ruleset"},
	"ruleset/classifier":    {"ruleset", "dataplane/packet"},
	"ruleset/analysis":      {"dataplane/packet", "ruleset", "ruleset/classifier"},
	// Writes documents that package arm reads.
	"ruleset/export":   {"ruleset"},
	"ruleset/optimize": {"ruleset", "ruleset/analysis", "ruleset/classifier"},
	"conntrack":        {"dataplane/packet"},
	// Memory that outlives the process knows nothing of what is in it.
	"conntrack/slab": {},
	// Speaks systemd's protocol, from both sides.
	"tun/fdstore": {},
	// What a process leaves to the next one; of topology the names of rules.
	"dataplane/continuity": {"conntrack/slab", "dataplane/topology", "tun/folder"},
	"dataplane/topology":   {"dataplane/packet", "ruleset", "ruleset/policy", "ruleset/classifier"},
	"dataplane/fragment":   {"conntrack", "dataplane/packet"},
	"dataplane/coalesce":   {"dataplane/packet", "tun"},
	"dataplane/translate":  {"dataplane/packet", "tun"},
	"dataplane/virtio":     {"dataplane/packet", "tun"},
	"dataplane/watch":      {"conntrack", "dataplane/packet"},
	"dataplane/denylog":    {"dataplane/fault", "dataplane/packet", "dataplane/topology", "dataplane/watch", "ruleset"},
	"dataplane/counter":    {"conntrack/slab", "dataplane/packet", "dataplane/topology"}, // of topology how many rules there can be
	"dataplane/fault":      {},
	"dataplane/errand":     {"dataplane/fault"},
	// The places of attachments in an engine.
	"dataplane/port": {"dataplane/continuity", "dataplane/counter", "dataplane/topology", "ruleset/policy", "tun"},
	// Frees what has timed out.
	"dataplane/sweep": {"conntrack", "dataplane/fault", "dataplane/fragment"},
	"dataplane/lane":  {"dataplane/counter", "dataplane/fault", "dataplane/packet", "tun"},
	"dataplane/probe": {"dataplane/fault", "dataplane/topology", "tun"},
	"dataplane/dhcp":  {"dataplane/topology", "ruleset/policy", "tun"}, // of tun the namespaces
	// Judges a policy beside the one in force, by verdict alone.
	"dataplane/candidate": {"dataplane/packet", "dataplane/topology", "dataplane/verdict", "dataplane/watch"},
	// Remembers what was denied, dropped and ended; of topology what slots mean.
	"dataplane/history": {"conntrack", "dataplane/counter", "dataplane/packet", "dataplane/topology", "dataplane/verdict", "dataplane/watch", "ruleset"},
	// Answers machines at the platform's device; of tun the namespaces, of topology the platform's addresses.
	"dataplane/platform": {"dataplane/fault", "dataplane/serve", "dataplane/topology", "ruleset/policy", "tun"},
	"dataplane/verdict":  {"conntrack", "dataplane/packet", "dataplane/topology", "ruleset", "ruleset/analysis", "ruleset/classifier"},
	"dataplane/ask":      {"dataplane/packet", "dataplane/topology", "dataplane/verdict", "ruleset", "ruleset/analysis", "ruleset/azure", "ruleset/classifier", "ruleset/optimize", "ruleset/policy"},
	"dataplane": {
		"conntrack", "dataplane/coalesce", "dataplane/continuity", "dataplane/counter", "dataplane/errand", "dataplane/fault", "dataplane/fragment", "dataplane/lane", "dataplane/logring", "dataplane/packet", "dataplane/port", "dataplane/sweep", "dataplane/topology", "dataplane/translate", "dataplane/verdict", "dataplane/virtio", "dataplane/watch", "ruleset", "ruleset/policy", "ruleset/classifier", "tun",
	},
	// Takes flows from one engine to another host's.
	"dataplane/transfer": {"conntrack", "dataplane", "dataplane/packet", "dataplane/topology", "ruleset"},
	// A cluster's policy as files; of tun the folder that a host trusts.
	"dataplane/cluster/generation": {"tun/folder"},
	// An etcd for tests, and links to it that can be cut.
	"dataplane/cluster/clustertest": {},
	// The store and the host's agent know nothing of engines: the daemon is behind an interface.
	"dataplane/cluster": {"dataplane/cluster/generation"},
	// Says what a policy and a placement need of engine and kernel.
	"dataplane/cluster/plan": {"dataplane/cluster", "dataplane/topology", "ruleset/policy", "tun/fabric"},
	"dataplane/serve":        {},
	// Makes certificates for tests.
	"dataplane/serve/servetest": {},
	"dataplane/logring":         {},
	// Tells when files have changed, whatever they hold.
	"dataplane/filewatch": {},
	// A log that the tests of what logs can read.
	"dataplane/logring/logringtest": {},
	"dataplane/pcap":                {},
	// Reads Azure's flow logs; metrics/flowlog writes them.
	"dataplane/flowtuple": {"dataplane/packet"},
	// Finds rows of them in folders, by the filters of watch.
	"dataplane/logquery": {"dataplane/flowtuple", "dataplane/packet", "dataplane/watch"},
	"dataplane/replay": {
		"conntrack", "dataplane", "dataplane/flowtuple", "dataplane/fragment", "dataplane/inspect", "dataplane/packet", "dataplane/pcap", "dataplane/topology", "dataplane/verdict", "ruleset/policy", "tun",
	},
	// Makes rules of what was seen: flows that inspect tells, and beginnings that replay does.
	"dataplane/suggest": {"dataplane/ask", "dataplane/inspect", "dataplane/packet", "dataplane/replay", "dataplane/topology", "dataplane/verdict", "ruleset", "ruleset/analysis", "ruleset/classifier", "ruleset/policy"},
	"dataplane/inspect": {
		"conntrack", "dataplane", "dataplane/ask", "dataplane/candidate", "dataplane/counter", "dataplane/fragment", "dataplane/history", "dataplane/packet", "dataplane/pcap", "dataplane/probe", "dataplane/topology", "dataplane/verdict", "dataplane/watch", "ruleset", "ruleset/arm", "ruleset/azure", "ruleset/policy",
		"tun", // a reload that changes attachments hands devices from the configuration to the engine
	},
	"dataplane/control": {"conntrack", "dataplane", "dataplane/ask", "dataplane/history", "dataplane/inspect", "dataplane/serve", "dataplane/watch", "ruleset/azure", "tun/folder"},
	// Answers the console's pages, as control answers nsgctl.
	"dataplane/console": {"dataplane/ask", "dataplane/inspect", "dataplane/serve", "dataplane/watch"},
	"metrics": {
		"conntrack", "dataplane", "dataplane/counter", "dataplane/fault", "dataplane/packet", "dataplane/serve", "dataplane/topology", "dataplane/watch", "ruleset",
	},
	"metrics/flowlog": {
		"conntrack", "dataplane", "dataplane/packet", "dataplane/topology", "dataplane/watch", "ruleset", "ruleset/policy", "conntrack/slab", "tun/folder",
	},
	"deploy/lab":     {"dataplane", "dataplane/ask", "ruleset/azure", "dataplane/packet", "dataplane/platform", "dataplane/topology", "ruleset", "ruleset/policy", "ruleset/classifier", "tun"},
	"deploy/grafana": {},
	// The console's pages as files.
	"deploy/console": {},
	"cmd/nsgd":       {anyPackage, "cmd/nsgd/privileged"},
	// Does what needs a capability, in a process of its own; opens the sockets of what answers in namespaces.
	"cmd/nsgd/privileged": {"dataplane/control", "dataplane/dhcp", "dataplane/platform", "dataplane/probe", "tun", "tun/container", "tun/fabric", "tun/fdstore", "tun/intercept"},
	"cmd/nsgctl":          {anyPackage, "cmd/nsgctl/report", "cmd/nsgctl/testfile", "cmd/nsgctl/top", "cmd/nsgctl/yamlfile"},
	// The formats that pipelines read know nothing of policies: lint, diff and test share them.
	"cmd/nsgctl/report": {},
	// Files that people write for verbs are read strictly, in one way, and test files by it.
	"cmd/nsgctl/yamlfile": {"ruleset"},
	"cmd/nsgctl/testfile": {"cmd/nsgctl/yamlfile", "dataplane/ask", "dataplane/packet", "ruleset", "ruleset/analysis", "ruleset/arm"},
	// Holds the schemas of files to the structs that read them.
	"deploy/schema/schematest": {},
	// The live view is drawn where a test reaches it, apart from the daemon's packages: only nsgctl
	// needs what draws on terminals.
	"cmd/nsgctl/top": {"dataplane/control", "dataplane/inspect"},
	// Reads flow logs for tests, by what Azure documents alone.
	"metrics/flowlog/flowlogtest": {},
	// Holds the policies that the tests of engine, questions and verdict share.
	"dataplane/enginetest": {"dataplane/packet/packettest", "dataplane/topology", "ruleset", "ruleset/policy"},
	// Builds packets for the tests of every layer.
	"dataplane/packet/packettest": {"dataplane/packet"},
	// Holds the rule sets that tests and benchmarks share.
	"ruleset/classifier/classifiertest": {"ruleset", "ruleset/classifier"},
	// Makes documents for the tests of every layer.
	"ruleset/arm/armtest": {},
	// A device without a kernel for the tests of what carries packets.
	"tun/tuntest": {"tun"},
	// The slow flow that the oracles share.
	"conntrack/conntracktest": {"dataplane/packet"},

	// The lab on several hosts starts daemons and asks them.
	"deploy/lab/hosts": {"dataplane/control", "dataplane/inspect", "dataplane/topology", "deploy/lab"},

	"test":       {anyPackage},
	"test/bench": {anyPackage},
	"test/e2e":   {anyPackage},
	// Holds every opinion of a packet to the engine.
	"test/worlds": {anyPackage},
	// Holds the engine to a plain model of what may pass, for as long as one likes.
	"test/simulate": {anyPackage},
	// Holds what a cluster does, in whatever happens to it, to what must never be.
	"test/clustercheck": {anyPackage},
	// Reads the cases and builds their packets.
	"test/conformance": {anyPackage},
	// Reads documents as nsgctl validate does.
	"test/corpus": {anyPackage},
	// Breaks guards by text alone.
	"test/mutate": {},
	// Runs the benchmarks of two trees.
	"test/compare": {},
	// A second opinion shares nothing with the first.
	"test/conformance/reference": {},
}

// onlyExternal are packages whose imports from outside the module and the
// standard library are limited too.
var onlyExternal = map[string]string{
	"dataplane/packet": "github.com/google/gopacket",
}

// onlyImporters are packages of the standard library that only some rooms may import.
var onlyImporters = map[string][]string{
	// Control, the console and metrics answer, on what serve bounds; probe asks backends; the lab is client and server of its figure; platform is IMDS; container asks Docker.
	"net/http": {"tun/container", "dataplane/control", "dataplane/console", "dataplane/serve", "metrics", "dataplane/probe", "dataplane/platform", "deploy/lab", "test/bench"},
}

// withoutImport are packages that must not import a package of the standard library.
var withoutImport = map[string]string{
	"ruleset/policy": "encoding/json", // the model knows no file format
}

// topLevel is everything that may stand beside go.mod, dot files apart.
var topLevel = []string{
	"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "bin", "cmd", "conntrack", "dataplane", "deploy",
	"go.mod", "go.sum", "metrics", "ruleset", "scripts", "test", "tun",
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// listPackages asks the go command, so that build constraints count as they do
// when building.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	command := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Standard", "./...")
	command.Dir = ".."
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

func TestImportsRunDownwards(t *testing.T) {
	for _, p := range listPackages(t) {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		t.Run(room, func(t *testing.T) {
			allowed, known := allowedImports[room]
			if !known {
				t.Fatalf("package %s has no place in the architecture: add it to allowedImports with what it may import", room)
			}
			for _, imported := range p.Imports {
				if reason := forbidden(room, allowed, imported); reason != "" {
					t.Errorf("%s imports %s: %s", room, imported, reason)
				}
			}
		})
	}
}

// forbidden says why room may not import the path, or nothing when it may.
func forbidden(room string, allowed []string, imported string) string {
	imported, _, _ = strings.Cut(imported, " [") // built with the profile of the program in brackets
	if target, inside := strings.CutPrefix(imported, module+"/"); inside {
		if slices.Contains(allowed, anyPackage) && !strings.HasPrefix(target, "cmd/") || slices.Contains(allowed, target) {
			return ""
		}
		return "not among " + strings.Join(allowed, ", ")
	}
	if rooms, limited := onlyImporters[imported]; limited && !slices.Contains(rooms, room) {
		return "only " + strings.Join(rooms, ", ") + " may"
	}
	if withoutImport[room] == imported {
		return "the package must do without it"
	}
	only, limited := onlyExternal[room]
	first, _, _ := strings.Cut(imported, "/")
	standard := !strings.Contains(first, ".")
	if !limited || standard || imported == only || strings.HasPrefix(imported, only+"/") {
		return ""
	}
	return "besides the standard library only " + only
}

func TestForbidden(t *testing.T) {
	tests := []struct {
		name           string
		room, imported string
		forbidden      bool
	}{
		{"a layer imports the one below it", "dataplane", "conntrack", false},
		{"the leaf imports nothing of the module", "dataplane/packet", "ruleset", true},
		{"an upward import is refused", "conntrack", "dataplane", true},
		{"nothing but commands and tests imports the lab", "dataplane/control", "deploy/lab", true},
		{"a command imports the lab", "cmd/nsgd", "deploy/lab", false},
		{"nothing imports a command", "test", "cmd/nsgd", true},
		{"nothing but its command imports the live view", "cmd/nsgd", "cmd/nsgctl/top", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reason := forbidden(tt.room, allowedImports[tt.room], module+"/"+tt.imported)
			if (reason != "") != tt.forbidden {
				t.Errorf("%s imports %s: reason %q, want forbidden %v", tt.room, tt.imported, reason, tt.forbidden)
			}
		})
	}
	t.Run("the leaf imports gopacket's layers and the standard library", func(t *testing.T) {
		for _, imported := range []string{"github.com/google/gopacket/layers", "encoding/binary"} {
			if reason := forbidden("dataplane/packet", nil, imported); reason != "" {
				t.Errorf("%s: %s", imported, reason)
			}
		}
	})
	t.Run("only the rooms of HTTP import it", func(t *testing.T) {
		if forbidden("dataplane/inspect", nil, "net/http") == "" || forbidden("dataplane/control", nil, "net/http") != "" {
			t.Error("net/http is not kept to its rooms")
		}
	})
	t.Run("the model imports no JSON", func(t *testing.T) {
		if forbidden("ruleset/policy", nil, "encoding/json") == "" {
			t.Error("encoding/json is not refused")
		}
	})
	t.Run("the leaf imports no other module", func(t *testing.T) {
		if forbidden("dataplane/packet", nil, "golang.org/x/sys/unix") == "" {
			t.Error("golang.org/x/sys/unix is not refused")
		}
	})
}

func TestTopLevelHoldsOnlyTheRoomsOfTheDesign(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "coverage.") {
			continue
		}
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s at the top level: a new thing finds its room inside one of %v", name, topLevel)
		}
	}
}
