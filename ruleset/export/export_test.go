package export

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

const asg = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/nsgd/providers/Microsoft.Network/applicationSecurityGroups/"

// hostile are texts that mean something in one of the languages.
var hostile = []string{`[parameters('x')]`, "[[a]]", "[a", "${var.x}", "%{ if true }", "$${x}", `"`, `\`, `'`, "a\nb", "\u2028\x00\x7f", "'''", "// c", "é\U0001f600", "</script>"}

func rules() []ruleset.Rule {
	every := []ruleset.PortRange{ruleset.AllPorts}
	list := []ruleset.Rule{
		{Name: "web", Priority: 200, Direction: ruleset.Inbound, Access: ruleset.Allow, Protocol: ruleset.TCP, Source: ruleset.Peer{Tag: "Internet"}, Destination: ruleset.Peer{Any: true},
			SourcePorts: every, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}, {First: 8000, Last: 8080}}},
		{Name: "ssh", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Deny, Protocol: ruleset.TCP, SourcePorts: []ruleset.PortRange{{First: 1024, Last: 65535}},
			Source:      ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}},
			Destination: ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/32")}}, DestinationPorts: []ruleset.PortRange{{First: 22, Last: 22}}},
		{Name: "out", Priority: 100, Direction: ruleset.Outbound, Access: ruleset.Allow, Protocol: ruleset.AnyProtocol, SourcePorts: every, DestinationPorts: every,
			Source: ruleset.Peer{ApplicationSecurityGroups: []string{asg + "web", asg + "db"}}, Destination: ruleset.Peer{Tag: "Storage.WestEurope"}},
	}
	for i, text := range hostile {
		r := list[0]
		r.Name, r.Priority, r.Description = fmt.Sprintf("h%d", i), 300+i, text
		list = append(list, r)
	}
	return list
}

func group(name string) *ruleset.NSG {
	return &ruleset.NSG{Name: name, ID: "/subscriptions/s/resourceGroups/web-rg/providers/Microsoft.Network/networkSecurityGroups/" + name, Location: "westeurope",
		FlushConnection: true, Rules: rules()}
}

func written(t *testing.T, f Format, groups ...*ruleset.NSG) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f, groups); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What is written as a template is read back as it was.
func TestATemplateIsReadBackAsItWas(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "nsg.json")
	if err := os.WriteFile(file, []byte(written(t, ARM, group("web-nsg"))), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "db"} {
		text := fmt.Sprintf(`{"id": %q, "name": %q, "type": "Microsoft.Network/applicationSecurityGroups", "location": "westeurope", "properties": {}}`, asg+name, name)
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := arm.Load(dir)
	if len(d.Faults)+len(d.Unresolved) > 0 || len(d.Set.NetworkSecurityGroups) != 1 {
		t.Fatalf("%v %v", d.Faults, d.Unresolved)
	}
	got, want := d.Set.NetworkSecurityGroups[0], group("web-nsg")
	if got.Name != want.Name || got.Location != want.Location || !got.FlushConnection {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(inOrder(want), got.Rules, cmpopts.IgnoreFields(ruleset.Rule{}, "ID", "Written"), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// Terraform's own formatter reads the document and has nothing to change.
func TestTerraformFormatsItSo(t *testing.T) {
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Skip("no terraform here")
	}
	nameless := group("other")
	nameless.ID, nameless.Location = "", ""
	text := written(t, Terraform, group("web-nsg"), nameless)
	c := exec.CommandContext(t.Context(), terraform, "fmt", "-")
	c.Dir, c.Stdin = t.TempDir(), strings.NewReader(text)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, stderr.String(), text)
	}
	if diff := cmp.Diff(text, string(out)); diff != "" {
		t.Error(diff)
	}
}

// bicepFolder is where scripts/setup puts the grammar of Bicep.
const bicepFolder = "/var/cache/nsgd/bicep"

// The grammar of Bicep reads the document, whatever the texts in it are, and would not read it cut off.
func TestTheGrammarOfBicepReadsIt(t *testing.T) {
	node, err := exec.LookPath("node")
	if _, missing := os.Stat(bicepFolder + "/tree-sitter-bicep.wasm"); err != nil || missing != nil {
		t.Skip("no node, or no grammar: scripts/setup fetches it")
	}
	faults := func(text string) string {
		c := exec.CommandContext(t.Context(), node, "testdata/bicep.mjs", bicepFolder)
		c.Stdin = strings.NewReader(text)
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		return string(out)
	}
	named, nameless := group("web-nsg"), group("other")
	nameless.ID, nameless.Location = "", ""
	for _, g := range []*ruleset.NSG{named, nameless} { // this grammar takes // within a text for a comment
		g.Rules = slices.DeleteFunc(g.Rules, func(r ruleset.Rule) bool { return strings.HasPrefix(r.Description, "//") })
	}
	text := written(t, Bicep, named, nameless)
	if found := faults(text); found != "" {
		t.Errorf("%s\n%s", found, text)
	}
	if faults(text[:len(text)-3]) == "" {
		t.Error("a document that is cut off is read too")
	}
}

func TestDocuments(t *testing.T) {
	g := group("web-nsg")
	g.Rules = g.Rules[1:3]
	for f, extension := range map[Format]string{ARM: "json", Bicep: "bicep", Terraform: "tf"} {
		t.Run(string(f), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", "nsg."+extension))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), written(t, f, g)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A quoted text stays on its line, ends where it ends, and is what it was.
func TestQuotedTextsAreWhatTheyWere(t *testing.T) {
	alphabet := []rune("ab'\"\\$%{}[]\n\r\t\x00\u0085\u2028é\U0001f600\U000e0001")
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(12) {
			b.WriteRune(alphabet[random.IntN(len(alphabet))])
		}
		text := b.String()
		for _, tt := range []struct {
			language, quoted string
			quote            byte
			doubled          bool
		}{{"Bicep", quoteBicep(text), '\'', false}, {"HCL", quoteHCL(text), '"', true}} {
			if got, ok := unquote(tt.quoted, tt.quote, tt.doubled); !ok || got != text {
				t.Fatalf("%s: %q became %s, which reads as %q", tt.language, text, tt.quoted, got)
			}
		}
	}
}

// unquote reads a string as Bicep or, with doubled, as HCL does; false for one that ends early, has another line or an
// interpolation.
func unquote(q string, quote byte, doubled bool) (string, bool) {
	if len(q) < 2 || q[0] != quote || q[len(q)-1] != quote {
		return "", false
	}
	var b strings.Builder
	for q = q[1 : len(q)-1]; q != ""; {
		c, size := utf8.DecodeRuneInString(q)
		switch {
		case c == rune(quote) || c < ' ':
			return "", false
		case doubled && (strings.HasPrefix(q, "$${") || strings.HasPrefix(q, "%%{")):
			b.WriteString(q[1:3])
			q = q[3:]
			continue
		case strings.HasPrefix(q, "${"), doubled && strings.HasPrefix(q, "%{"):
			return "", false
		case c != '\\':
			b.WriteRune(c)
			q = q[size:]
			continue
		}
		digits, length := "", 2
		switch e := q[1]; {
		case e == 'n':
			b.WriteByte('\n')
		case doubled && e == 'u':
			digits, length = q[2:6], 6
		case doubled && e == 'U':
			digits, length = q[2:10], 10
		case e == 'u':
			end := strings.IndexByte(q, '}')
			digits, length = q[3:end], end+1
		default:
			b.WriteByte(e)
		}
		if digits != "" {
			n, err := strconv.ParseUint(digits, 16, 32)
			if err != nil {
				return "", false
			}
			b.WriteRune(rune(n))
		}
		q = q[length:]
	}
	return b.String(), true
}

func TestWhatCanNotBeWrittenIsRefused(t *testing.T) {
	if err := Write(&bytes.Buffer{}, ARM, []*ruleset.NSG{group("web"), group("WEB")}); err == nil || !strings.Contains(err.Error(), "one name") {
		t.Errorf("two groups of one name: %v", err)
	}
	if err := Write(&bytes.Buffer{}, "yaml", nil); err == nil || !strings.Contains(err.Error(), "arm, bicep and terraform") {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestIdentifiersAreUnique(t *testing.T) {
	names := identifiers{}
	var got []string
	for _, name := range []string{"Web-NSG", "web.nsg", "1st", "", "é"} {
		got = append(got, names.of(name))
	}
	if diff := cmp.Diff([]string{"web_nsg", "web_nsg_2", "nsg_1st", "nsg_", "_"}, got); diff != "" {
		t.Error(diff)
	}
}
