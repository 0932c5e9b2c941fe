package control_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// tagged is a service with the lab's policy, whose NSG1 allows HTTP from the tag Sql, and
// a service tag file.
type tagged struct {
	t       *testing.T
	policy  string
	tags    string
	service *inspect.Service
	late    func() // what the service wants to be called later
}

func newTagged(t *testing.T) *tagged {
	t.Helper()
	policy := labPolicy(t)
	s := &tagged{t: t, policy: policy, tags: filepath.Join(t.TempDir(), "tags.json")}
	s.edit("nsg1.json", `"Internet"`, `"Sql"`)
	s.write(`"376"`, "192.0.2.0/24")
	files := inspect.NewPolicyFiles(s.tags, policy)
	set, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.service = inspect.NewService(inspect.Options{Engine: engine, Policy: files, AfterFunc: func(_ time.Duration, f func()) func() bool {
		s.late = f
		return func() bool { return true }
	}})
	return s
}

func (s *tagged) edit(document, old, replacement string) {
	s.t.Helper()
	(&rig{t: s.t, policy: s.policy}).replaceIn(document, old, replacement)
}

// write makes an edition of the tag file.
func (s *tagged) write(changeNumber, prefix string) {
	s.t.Helper()
	text := `{"changeNumber": ` + changeNumber + `, "cloud": "Public", "values": [{"name": "Sql", "properties": {"addressPrefixes": ["` + prefix + `"]}}]}`
	if err := os.WriteFile(s.tags, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// allows tells whether NSG1 lets HTTP from a source in.
func (s *tagged) allows(source string) bool {
	s.t.Helper()
	q, err := azure.ParseFlow([]byte(`{"targetNicResourceId":"vm2-nic","direction":"Inbound","protocol":"TCP","localPort":"80","remotePort":"50000","localIPAddress":"10.0.1.5","remoteIPAddress":"` + source + `"}`))
	if err != nil {
		s.t.Fatal(err)
	}
	result, err := ask.Verify(s.service.Snapshot(), q, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return result.Access == ruleset.Allow.String()
}

func TestReloadTakesANewServiceTagFileOrKeepsTheOldOne(t *testing.T) {
	s := newTagged(t)
	if !s.allows("192.0.2.7") || s.allows("198.51.100.7") {
		t.Fatal("the rule of the tag does not decide")
	}
	s.write("377", "198.51.100.0/24")
	if _, err := s.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if s.allows("192.0.2.7") || !s.allows("198.51.100.7") {
		t.Error("the new edition does not decide")
	}
	want := &inspect.ServiceTags{File: s.tags, ChangeNumber: "377", Cloud: "Public", Tags: 1}
	if diff := cmp.Diff(want, s.service.Status().ServiceTags); diff != "" {
		t.Error(diff)
	}
	written := s.service.Status().ServiceTagsWritten
	if info, err := os.Stat(s.tags); err != nil || written == nil || !written.Equal(info.ModTime()) {
		t.Errorf("the file in force is of %v, and it is of %v: %v", written, info.ModTime(), err)
	}
	before := s.service.Snapshot()
	for name, text := range map[string]string{"a prefix with host bits": "198.51.100.1/24", "no JSON": `"`} {
		s.write("378", text)
		_, err := s.service.Reload(inspect.ReloadRequest{})
		if err == nil || !strings.Contains(err.Error(), s.tags) {
			t.Errorf("%s: %v", name, err)
		}
		if s.service.Snapshot() != before || !s.allows("198.51.100.7") {
			t.Errorf("%s: the running policy was touched", name)
		}
		if now := s.service.Status().ServiceTagsWritten; !now.Equal(*written) {
			t.Errorf("%s: the file in force is of %v, want %v", name, now, written)
		}
		if diff := cmp.Diff(want, s.service.Status().ServiceTags); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	s.write("379", "203.0.113.0/24")
	if _, err := s.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if !s.allows("203.0.113.7") {
		t.Error("after bad editions a good one does not decide")
	}
}

func TestReloadRefusesATagThatTheFileLacks(t *testing.T) {
	s := newTagged(t)
	s.edit("nsg1.json", `"Sql"`, `"Sqll"`)
	_, err := s.service.Reload(inspect.ReloadRequest{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"nsg1.json", "AllowHttpInBound", "sourceAddressPrefix", `"Sqll"`, s.tags + " has 1", "near is Sql"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

// What a reload gives is what a start would give, tables that it did not compile included.
func TestReloadCompilesWhatChangedAndNothingElse(t *testing.T) {
	s := newTagged(t)
	tables := func() (list []*topology.Table) {
		for _, g := range s.service.Snapshot().Groups {
			list = append(list, &g.Inbound, &g.Outbound)
		}
		return list
	}
	before := tables()
	s.edit("nsg2.json", `"destinationPortRange": "80"`, `"destinationPortRange": "81"`)
	if _, err := s.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	for i, table := range tables() {
		if changed := table.Match != before[i].Match; changed != (i == 2) { // NSG2 inbound
			t.Errorf("table %d compiled anew: %v", i, changed)
		}
	}
}
