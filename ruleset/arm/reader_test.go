package arm

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
)

// policyFolder is a folder of documents that a test changes between readings.
type policyFolder struct {
	t      *testing.T
	dir    string
	reader *Reader
}

const tagsFile = "tags.json"

func newPolicyFolder(t *testing.T, documents map[string]string) *policyFolder {
	t.Helper()
	f := &policyFolder{t: t, dir: t.TempDir()}
	for name, text := range documents {
		f.write(name, text)
	}
	tags := ""
	if documents[tagsFile] != "" {
		tags = filepath.Join(f.dir, tagsFile)
	}
	f.reader = NewReader(tags, f.dir)
	return f
}

// write replaces a document; an empty one is removed.
func (f *policyFolder) write(name, text string) {
	f.t.Helper()
	file := filepath.Join(f.dir, name)
	err := os.WriteFile(file, []byte(text), 0o644)
	if text == "" {
		err = os.RemoveAll(file)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// read reads the folder again, and checks that a new Reader would read the same.
func (f *policyFolder) read() *Documents {
	f.t.Helper()
	got, want := f.reader.Read(), NewReader(f.reader.tagPath, f.dir).Read()
	if !reflect.DeepEqual(got.Set, want.Set) {
		f.t.Errorf("read again, the set is\n%+v\nand read anew\n%+v", got.Set, want.Set)
	}
	if !slices.Equal(got.Faults, want.Faults) || !slices.Equal(got.Unresolved, want.Unresolved) {
		f.t.Errorf("read again:\n%v\n%v\nread anew:\n%v\n%v", got.Faults, got.Unresolved, want.Faults, want.Unresolved)
	}
	if got, want := got.UnknownTags(), want.UnknownTags(); !slices.Equal(got, want) {
		f.t.Errorf("unknown tags read again: %v, read anew: %v", got, want)
	}
	return got
}

// mustRead is read, for documents without a fault.
func (f *policyFolder) mustRead() *Documents {
	f.t.Helper()
	d := f.read()
	if len(d.Faults) > 0 || len(d.Unresolved) > 0 {
		f.t.Fatal(d.Faults, d.Unresolved)
	}
	return d
}

func (d *Documents) group(t *testing.T, name string) *ruleset.NSG {
	t.Helper()
	g, err := d.Set.NetworkSecurityGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// groupDocument is an NSG with a rule from source, which is JSON after "source".
func groupDocument(name, source string) string {
	return fmt.Sprintf(`{"type": "Microsoft.Network/networkSecurityGroups", "name": %q, "properties": {"securityRules": [
		{"name": "r", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow", "protocol": "*", "sourcePortRange": "*",
		"destinationPortRange": "*", "destinationAddressPrefix": "*", "source%s}}]}}`, name, source)
}

func fromPrefix(source string) string { return `AddressPrefix": "` + source + `"` }

func fromASG(id string) string { return `ApplicationSecurityGroups": [{"id": "` + id + `"}]` }

func asgDocument(ids ...string) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf(`{"type": "Microsoft.Network/applicationSecurityGroups", "name": %q, "id": %q}`, lastSegment(id), id))
	}
	return "[" + strings.Join(list, ",") + "]"
}

func tagDocumentOf(prefix string, names ...string) string {
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf(`{"name": %q, "properties": {"addressPrefixes": [%q, "2001:db8::/32"]}}`, name, prefix))
	}
	return `{"changeNumber": 1, "values": [` + strings.Join(list, ",") + `]}`
}

const inAzure = "/subscriptions/s1/resourceGroups/rg/providers/Microsoft.Network/applicationSecurityGroups/"

// located is a document whose first resource is in a region.
func located(document, region string) string {
	return strings.Replace(document, `"name"`, fmt.Sprintf(`"location": %q, "name"`, region), 1)
}

func TestAReaderKeepsTheGroupsOfUnchangedDocuments(t *testing.T) {
	f := newPolicyFolder(t, map[string]string{
		"a.json": groupDocument("a", fromPrefix("Internet")), "b.json": groupDocument("b", fromASG("web")), "asg.json": asgDocument(inAzure + "web"),
	})
	first := f.mustRead()
	f.write("a.json", groupDocument("a", fromPrefix("10.0.0.0/8")))
	second := f.mustRead()
	if first.group(t, "b") != second.group(t, "b") {
		t.Error("the group of an unchanged document was read again")
	}
	if first.group(t, "a") == second.group(t, "a") || second.group(t, "a").Rules[0].Source.Prefixes == nil {
		t.Error("the group of a changed document was not read again")
	}
}

func TestAReaderReadsAgainWhatAnotherDocumentChanges(t *testing.T) {
	const rule = `{"type": "Microsoft.Network/networkSecurityGroups/securityRules", "name": "a/child", "properties": {"priority": 200, "direction": "Inbound",
		"access": "Deny", "protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*"}}`
	t.Run("a rule of the group comes and goes", func(t *testing.T) {
		f := newPolicyFolder(t, map[string]string{"a.json": groupDocument("a", fromPrefix("Internet"))})
		for range 2 {
			f.mustRead()
			f.write("b.json", rule)
			if g := f.mustRead().group(t, "a"); len(g.Rules) != 2 {
				t.Errorf("rules %+v", g.Rules)
			}
			f.write("b.json", "")
		}
		if g := f.mustRead().group(t, "a"); len(g.Rules) != 1 {
			t.Errorf("rules %+v", g.Rules)
		}
	})
	t.Run("a name means another application security group", func(t *testing.T) {
		f := newPolicyFolder(t, map[string]string{"a.json": groupDocument("a", fromASG("web")), "asg.json": asgDocument(inAzure + "web")})
		f.mustRead()
		f.write("asg.json", asgDocument(strings.Replace(inAzure, "rg", "other", 1)+"web"))
		if id := f.mustRead().group(t, "a").Rules[0].Source.ApplicationSecurityGroups[0]; !strings.Contains(id, "/other/") {
			t.Errorf("the rule names %s", id)
		}
		f.write("asg.json", asgDocument(inAzure+"db"))
		if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != CodeInvalidResourceReference {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("a network is in another region than its group", func(t *testing.T) {
		const net = `{"type": "Microsoft.Network/virtualNetworks", "name": "v", "location": %q, "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
			"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "networkSecurityGroup": {"id": "a"}}}]}}`
		f := newPolicyFolder(t, map[string]string{"a.json": located(groupDocument("a", fromPrefix("Internet")), "West Europe"), "net.json": fmt.Sprintf(net, "westeurope")})
		f.mustRead()
		f.write("net.json", fmt.Sprintf(net, "northeurope"))
		if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != CodeInvalidResourceReference {
			t.Errorf("faults %v", d.Faults)
		}
	})
	t.Run("two documents have the group", func(t *testing.T) {
		f := newPolicyFolder(t, map[string]string{"a.json": groupDocument("a", fromPrefix("Internet"))})
		f.mustRead()
		f.write("b.json", groupDocument("A", fromPrefix("*")))
		if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != CodeDuplicateResource {
			t.Errorf("faults %v", d.Faults)
		}
	})
}

func TestAReaderFollowsTheServiceTagFile(t *testing.T) {
	f := newPolicyFolder(t, map[string]string{
		tagsFile: tagDocumentOf("192.0.2.0/24", "Storage", "Sql", "Other"),
		"a.json": groupDocument("a", fromPrefix("STORAGE")), "b.json": groupDocument("b", fromPrefix("Internet")),
	})
	d := f.mustRead()
	if tag := d.group(t, "a").Rules[0].Source.Tag; tag != "Storage" || len(d.Set.ServiceTags) != 1 || !slices.Equal(d.Set.ServiceTags["Storage"], networks("192.0.2.0/24", "2001:db8::/32")) {
		t.Errorf("tag %q, set %v", tag, d.Set.ServiceTags)
	}
	if f.reader.ServiceTags().Prefixes("Sql") != nil {
		t.Error("the prefixes of a tag that no rule names are kept")
	}

	f.write("b.json", groupDocument("b", fromPrefix("Sql")))
	again := f.mustRead()
	if len(again.Set.ServiceTags["Sql"]) != 2 || &again.Set.ServiceTags["Storage"][0] != &d.Set.ServiceTags["Storage"][0] {
		t.Errorf("a tag that was forgotten, and one that was not: %v", again.Set.ServiceTags)
	}

	f.write(tagsFile, tagDocumentOf("198.51.100.0/24", "storage", "Sql"))
	again = f.mustRead()
	if got := again.Set.ServiceTags["storage"]; !slices.Equal(got, networks("198.51.100.0/24", "2001:db8::/32")) || again.group(t, "a").Rules[0].Source.Tag != "storage" {
		t.Errorf("a new edition: %v", again.Set.ServiceTags)
	}

	f.write(tagsFile, tagDocumentOf("198.51.100.0/24", "Storage"))
	if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != ruleset.CodeInvalidAddressPrefix || filepath.Base(d.Faults[0].File) != "b.json" || d.Faults[0].Value != "Sql" {
		t.Errorf("an edition that lacks a tag in use: %v", d.Faults)
	}

	f.write(tagsFile, `{"values": 7}`)
	if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != CodeInvalidServiceTags {
		t.Errorf("a bad edition: %v", d.Faults)
	}
	f.write(tagsFile, "")
	if d := f.read(); len(d.Faults) != 1 || d.Faults[0].Code != CodePathNotFound {
		t.Errorf("no file: %v", d.Faults)
	}
	f.write(tagsFile, tagDocumentOf("198.51.100.0/24", "Storage", "Sql"))
	f.mustRead()
}

// Whole would mix two editions of the file.
func TestTagsOfAChangedFileAreNotGiven(t *testing.T) {
	f := newPolicyFolder(t, map[string]string{tagsFile: tagDocumentOf("192.0.2.0/24", "Storage", "Sql"), "a.json": groupDocument("a", fromPrefix("Storage"))})
	f.mustRead()
	tags := f.reader.ServiceTags()
	whole, err := tags.Whole()
	if err != nil || len(whole.Prefixes("Sql")) != 2 {
		t.Errorf("tags of the file as it was read: %v, %v", whole, err)
	}
	f.write(tagsFile, tagDocumentOf("198.51.100.0/24", "Storage", "Sql"))
	if whole, err := tags.Whole(); err == nil || !strings.Contains(err.Error(), "has changed since it was read") {
		t.Errorf("tags of another file: %v, %v", whole, err)
	}
}

// The names of earlier readings had used up the hints, so that later readings gave none.
func TestAReaderGivesItsHintsToTheNamesOfItsLastReading(t *testing.T) {
	f := newPolicyFolder(t, map[string]string{tagsFile: tagDocumentOf("192.0.2.0/24", "Storage"), "a.json": groupDocument("a", fromPrefix("Storag"))})
	for i := range maxHints {
		f.reader.Read()
		f.write("a.json", groupDocument("a", fromPrefix(fmt.Sprint("Mainframe", i))))
	}
	f.reader.Read()
	f.write("a.json", groupDocument("a", fromPrefix("Storge")))
	if d := f.read(); len(d.Faults) != 1 || !strings.Contains(d.Faults[0].Message, "near is Storage") {
		t.Error(d.Faults)
	}
}

// TestReadingAgainEqualsReadingAnew changes documents at random; read compares.
func TestReadingAgainEqualsReadingAnew(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 1))
	sources := []string{
		fromPrefix("Internet"), fromPrefix("10.0.0.0/8"), fromPrefix("Storage"), fromPrefix("sql"), fromPrefix("10.0.0.1/8"),
		fromASG("web"), fromASG(inAzure + "db"), fromPrefix("[parameters('p')]"),
	}
	regions := []string{"westeurope", "West Europe", "northeurope", "[parameters('p')]", ""}
	anywhere := func(document string) string { return located(document, regions[r.IntN(len(regions))]) }
	variants := map[string]func() string{
		tagsFile: func() string { return tagDocumentOf("192.0.2.0/24", []string{"Storage", "Sql"}[:1+r.IntN(2)]...) },
		"asg.json": func() string {
			return asgDocument([]string{inAzure + "web", inAzure + "db", strings.Replace(inAzure, "s1", "s2", 1) + "web"}[:r.IntN(4)]...)
		},
		"net.json": func() string {
			return anywhere(fmt.Sprintf(`{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
				"subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.%d.0/24", "networkSecurityGroup": {"id": "a"}}}]}}`, r.IntN(3)))
		},
		"list.json": func() string {
			return "[" + groupDocument("c", sources[r.IntN(len(sources))]) + "," + groupDocument("d", sources[r.IntN(len(sources))]) + "]"
		},
	}
	for _, name := range []string{"a", "b", "e"} {
		variants[name+".json"] = func() string { return anywhere(groupDocument(name, sources[r.IntN(len(sources))])) }
	}
	files := []string{"a.json", "b.json", "e.json", "list.json", "asg.json", "net.json", tagsFile}
	documents := map[string]string{}
	for _, file := range files {
		documents[file] = variants[file]()
	}
	f := newPolicyFolder(t, documents)
	for range 200 {
		f.read()
		if t.Failed() {
			break
		}
		file := files[r.IntN(len(files))]
		if r.IntN(10) == 0 && file != tagsFile {
			f.write(file, "")
			continue
		}
		f.write(file, variants[file]())
	}
}

func TestAKeyThatAnObjectHasTwiceIsAFault(t *testing.T) {
	const group = `{"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "properties": {"securityRules": []},
 %q: {"securityRules": []}}`
	for name, text := range map[string]string{
		"twice":        fmt.Sprintf(group, "properties"),
		"in two cases": fmt.Sprintf(group, "Properties"),
	} {
		file := filepath.Join(t.TempDir(), "n.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		faults := Load(file).Faults
		if len(faults) != 1 || faults[0].File != file || faults[0].Code != CodeInvalidJSON ||
			faults[0].Line != 2 || faults[0].Column != 2 || !strings.Contains(faults[0].Message, "twice: line 1, column 66") {
			t.Errorf("%s: %v", name, faults)
		}
	}
	linked := policyOf(t, map[string]string{
		"main.json":     `{"$schema": "s", "resources": [{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": {"relativePath": "x/linked.json"}}}]}`,
		"x/linked.json": `{"resources": [], "Resources": []}`,
	})
	out := Load(filepath.Join(linked, "main.json"))
	text := fmt.Sprint(out.Faults, out.Unresolved)
	if !strings.Contains(text, "linked.json") || !strings.Contains(text, `key \"Resources\" twice`) && !strings.Contains(text, `key "Resources" twice`) {
		t.Errorf("a linked template: %s", text)
	}
	// Terraform tells names apart by case.
	plan := policyOf(t, map[string]string{"t.json": `{"format_version": "1.0", "terraform_version": "1", "values": {"outputs": {"a": {}, "A": {}}, "root_module": {}}}`})
	if faults := Load(filepath.Join(plan, "t.json")).Faults; strings.Contains(fmt.Sprint(faults), "twice") {
		t.Errorf("Terraform: %v", faults)
	}
}
