package arm

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// realServiceTags is a weekly file as Microsoft published it, beside the repository; tests that
// want it are skipped when it isn't there.
const realServiceTags = "../../../shared/data/service-tags/ServiceTags_Public.json"

func networks(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func parseTags(t *testing.T, file string) *ServiceTags {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tags, faults := ParseServiceTags(file, data)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return tags
}

func TestTheWeeklyFileAndTheDiscoveryAnswerReadTheSame(t *testing.T) {
	for _, form := range []string{"weekly.json", "discovery.json"} {
		t.Run(form, func(t *testing.T) {
			tags := parseTags(t, filepath.Join("testdata", "servicetags", form))
			if tags.ChangeNumber != "376" || tags.Cloud != "Public" || tags.Len() != 4 {
				t.Errorf("change number %q, cloud %q, %d tags", tags.ChangeNumber, tags.Cloud, tags.Len())
			}
			tests := []struct {
				name, tag, canonical string
				prefixes             []netip.Prefix
			}{
				{"both families in the file's order", "Storage", "Storage", networks("198.51.100.0/25", "203.0.113.64/28", "2001:db8:1::/48")},
				{"a regional tag whose networkFeatures are null, in any case", "storage.WESTEUROPE", "Storage.WestEurope", networks("203.0.113.64/28", "2001:db8:1::/48")},
				{"a tag whose region is not its name's", "ActionGroup.FranceCentral", "ActionGroup.FranceCentral", networks("198.51.100.200/30")},
				{"the spelling of the file", "AZURECLOUD.WestEurope", "AzureCloud.westeurope", networks("203.0.113.0/24", "2001:db8::/32")},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					canonical, problem := tags.Known(tt.tag)
					if canonical != tt.canonical || problem != "" {
						t.Errorf("known as %q, %q", canonical, problem)
					}
					if got := tags.Prefixes(tt.tag); !slices.Equal(got, tt.prefixes) {
						t.Errorf("prefixes %v", got)
					}
				})
			}
		})
	}
}

func TestATagThatTheFileLacksIsAnsweredWithWhatIsNear(t *testing.T) {
	tags := parseTags(t, "testdata/servicetags/weekly.json")
	tests := []struct {
		name, tag string
		want      []string
		not       string
	}{
		{"a slip of the pen", "Storge", []string{"weekly.json has 4", "change number 376", "near is Storage"}, ""},
		{"a region that the tag does not have", "Storage.WestEurop", []string{"near are Storage.WestEurope, Storage"}, ""},
		{"a region of another service", "Storage.NorthPole", []string{"near is Storage"}, ""},
		{"nothing like it", "Mainframe", []string{"weekly.json has 4"}, "near"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			canonical, problem := tags.Known(tt.tag)
			if canonical != "" {
				t.Errorf("known as %q", canonical)
			}
			for _, want := range tt.want {
				if !strings.Contains(problem, want) {
					t.Errorf("%q lacks %q", problem, want)
				}
			}
			if tt.not != "" && strings.Contains(problem, tt.not) {
				t.Errorf("%q has %q", problem, tt.not)
			}
		})
	}
}

func TestServiceTagFileFaults(t *testing.T) {
	tests := []struct {
		name, document string
		want           []string // each in a fault's text
	}{
		{"no JSON", `{"values": [`, []string{"tags.json:1:12: InvalidJson: "}},
		{"UTF-16 that breaks off", "\xff\xfe{\x00", []string{"tags.json:1:1: InvalidJson: unexpected end"}},
		{"a list", `[]`, []string{"tags.json", "must be an object"}},
		{"another document", `{"name": "NSG1", "properties": {}}`, []string{"tags.json: values: InvalidServiceTagFile", "is it another file?"}},
		{"one page of several", `{"values": [{"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}], "nextLink": "https://next"}`,
			[]string{`nextLink "https://next"`}},
		{"a change number that is none", `{"changeNumber": "x1", "values": []}`, []string{`changeNumber "x1"`, "whole number"}},
		{"a name that is no string", `{"values": [{"name": 7}]}`, []string{`serviceTags/values[0]: values[0].name "7"`, "must be a string"}},
		{"a tag without a name", `{"values": [{"properties": {}}]}`, []string{"values[0].name"}},
		{"a name that no rule could use", `{"values": [{"name": "10.0.0.0/8"}]}`, []string{`values[0].name "10.0.0.0/8"`}},
		{"one name twice, but for its case", `{"values": [{"name": "Sql"}, {"name": "SQL"}]}`, []string{`serviceTags/SQL: values[1].name "SQL"`, "the tag Sql already"}},
		{"prefixes that are no list", `{"values": [{"name": "Sql", "properties": {"addressPrefixes": "192.0.2.0/24"}}]}`,
			[]string{"serviceTags/Sql: properties.addressPrefixes", "list of strings"}},
		{"every faulty prefix", `{"values": [{"name": "Sql", "properties": {"addressPrefixes": ["192.0.2.0/24", "192.0.2.1/24", "2001:db8::/129", ""]}}]}`,
			[]string{`serviceTags/Sql: properties.addressPrefixes[1] "192.0.2.1/24"`, "host bits are set; the network is 192.0.2.0/24", `addressPrefixes[2] "2001:db8::/129"`, "addressPrefixes[3]"}},
		{"prefixes that are no strings", `{"values": [{"name": "Sql", "properties": {"addressPrefixes": ["192.0.2.0/24", 7, ["x"]]}}]}`,
			[]string{`addressPrefixes[1] "7"`, `addressPrefixes[2] "[\"x\"]"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tags, faults := ParseServiceTags("tags.json", []byte(tt.document))
			if tags != nil || len(faults) == 0 {
				t.Fatalf("accepted: %+v", tags)
			}
			for _, want := range tt.want {
				if !strings.Contains(faults.Error(), want) {
					t.Errorf("%q is missing in:\n%v", want, faults)
				}
			}
		})
	}
}

// A value of the wrong type ended the reading, and its fault named Go types instead of the
// tag, the index and the value.
func TestEveryFaultOfATagFileIsReportedWithItsPlaceAndValue(t *testing.T) {
	const document = `{"changeNumber": 1.5, "cloud": ["<x>"], "nextLink": 7, "values": [
		{"name": "Sql", "properties": {"addressPrefixes": [null, 7.0, "192.0.2.0/24", "192.0.2.1/24", {"a": "<b>"}]}},
		{"name": 1e400, "properties": {"addressPrefixes": ["x"]}},
		{"name": "a b", "properties": 7},
		{"name": "SQL", "properties": {"addressPrefixes": "198.51.100.0/24"}},
		"Storage", null,
		{"properties": {"addressPrefixes": ["y"]}}
	]}`
	type place struct{ resource, field, value string }
	want := []place{
		{"", "changeNumber", "1.5"}, {"", "cloud", `["<x>"]`}, {"", "nextLink", "7"},
		{"serviceTags/Sql", "properties.addressPrefixes[0]", "null"}, {"serviceTags/Sql", "properties.addressPrefixes[1]", "7.0"},
		{"serviceTags/Sql", "properties.addressPrefixes[3]", "192.0.2.1/24"}, {"serviceTags/Sql", "properties.addressPrefixes[4]", `{"a":"<b>"}`},
		{"serviceTags/values[1]", "values[1].name", "1e400"}, {"serviceTags/values[1]", "properties.addressPrefixes[0]", "x"},
		{"serviceTags/values[2]", "values[2].name", "a b"}, {"serviceTags/values[2]", "properties", "7"},
		{"serviceTags/SQL", "values[3].name", "SQL"}, {"serviceTags/SQL", "properties.addressPrefixes", "198.51.100.0/24"},
		{"serviceTags/values[4]", "values[4]", "Storage"}, {"serviceTags/values[5]", "values[5]", "null"},
		{"serviceTags/values[6]", "values[6].name", ""}, {"serviceTags/values[6]", "properties.addressPrefixes[0]", "y"},
	}
	tags, faults := ParseServiceTags("tags.json", []byte(document))
	var got []place
	for _, f := range faults {
		if f.File != "tags.json" || f.Code != CodeInvalidServiceTags || f.Message == "" {
			t.Errorf("a fault says too little: %+v", f)
		}
		got = append(got, place{f.Resource, f.Field, f.Value})
	}
	if tags != nil || !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
}

// A changeNumber of null was the edition "null", and a missing one left a hole in messages.
func TestAFileWithoutAChangeNumberHasNoEdition(t *testing.T) {
	const values = `"values": [{"name": "Sql", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}`
	for name, start := range map[string]string{"missing": `{`, "null": `{"changeNumber": null, `} {
		t.Run(name, func(t *testing.T) {
			tags, faults := ParseServiceTags("tags.json", []byte(start+values))
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			_, problem := tags.Known("Mainframe")
			if want := "no service tag of that name is known: tags.json has 1 and not this one"; tags.ChangeNumber != "" || problem != want {
				t.Errorf("change number %q, %q", tags.ChangeNumber, problem)
			}
		})
	}
	t.Run("null as a string is no number", func(t *testing.T) {
		_, faults := ParseServiceTags("tags.json", []byte(`{"changeNumber": "null", `+values))
		if len(faults) != 1 || faults[0].Field != "changeNumber" || faults[0].Value != "null" {
			t.Error(faults)
		}
	})
}

func TestPrefixesThatJSONEscapesAreRead(t *testing.T) {
	tags, faults := ParseServiceTags("tags.json", []byte(`{"values": [{"name": "Sql", "properties": {"addressPrefixes": [ "192.0.2.0\/24" , "\u0031.0.0.0/8","198.51.100.7" ] }}]}`))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if got, want := tags.Prefixes("sql"), networks("192.0.2.0/24", "1.0.0.0/8", "198.51.100.7/32"); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestATagWithoutPrefixesIsAFaultOnlyOfARuleThatNamesIt(t *testing.T) {
	tags, faults := ParseServiceTags("tags.json", []byte(`{"values": [{"name": "Gone", "properties": {"addressPrefixes": []}}]}`))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, problem := tags.Known("gone"); !strings.Contains(problem, "Gone has no address prefixes in tags.json") {
		t.Error(problem)
	}
}

func TestMicrosoftsFileIsReadWhole(t *testing.T) {
	if _, err := os.Stat(realServiceTags); err != nil {
		t.Skip("no copy of Microsoft's service tag file beside the repository: ", err)
	}
	tags := parseTags(t, realServiceTags)
	prefixes := 0
	for _, of := range tags.tags {
		if canonical, problem := tags.Known(strings.ToUpper(of.Name)); canonical != of.Name || problem != "" {
			t.Errorf("%s: known as %q, %q", of.Name, canonical, problem)
		}
		prefixes += len(of.prefixes)
	}
	if tags.Len() < 1000 || prefixes < 50_000 {
		t.Errorf("%d tags with %d prefixes", tags.Len(), prefixes)
	}
	if n := len(tags.Prefixes("azurecloud")); n < 5000 {
		t.Errorf("AzureCloud has %d prefixes", n)
	}
}

func BenchmarkParseServiceTags(b *testing.B) {
	data, err := os.ReadFile(realServiceTags)
	if err != nil {
		b.Skip("no copy of Microsoft's service tag file beside the repository: ", err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, faults := ParseServiceTags(realServiceTags, data); len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}

func TestPagesOfTheDiscoveryAnswerReadAsOneFile(t *testing.T) {
	page := func(number, next, tag string) string {
		return fmt.Sprintf(`{"changeNumber": %s, "cloud": "Public", "nextLink": %s, "values": [{"name": %q, "properties": {"changeNumber": %s, "networkFeatures": null, "addressPrefixes": ["192.0.2.0/24"]}}]}`,
			number, next, tag, number)
	}
	tags, faults := ParseServiceTags("tags.json", []byte("["+page(`"7"`, `"https://next"`, "Sql")+","+page(`"7"`, "null", "Sql.West")+"]"))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if all := tags.All(); tags.ChangeNumber != "7" || tags.Cloud != "Public" || len(all) != 2 || all[1].Name != "Sql.West" || all[1].ChangeNumber != "7" || all[1].IPv4 != 1 {
		t.Errorf("%+v: %+v", tags, all)
	}
	for _, tt := range []struct{ name, document, want string }{
		{"the last page is missing", "[" + page("7", "null", "Sql") + "," + page("7", `"https://next"`, "A") + "]", `[1].nextLink "https://next"`},
		{"pages of two editions", "[" + page("7", `"https://next"`, "Sql") + "," + page("8", "null", "A") + "]", `[1].changeNumber "8"`},
		{"a tag on two pages", "[" + page("7", "null", "Sql") + "," + page("7", "null", "SQL") + "]", `[1].values[0].name "SQL"`},
		{"a page that is none", "[" + page("7", "null", "Sql") + ", 7]", `[1] "7"`},
		{"no page", "[]", "must be an object"},
		{"a tag's change number that is none", `{"values": [{"name": "A", "properties": {"changeNumber": "x"}}]}`, `properties.changeNumber "x"`},
		{"a region that is none", `{"values": [{"name": "A", "properties": {"region": 7}}]}`, `properties.region "7"`},
		{"features that are no list", `{"values": [{"name": "A", "properties": {"networkFeatures": "NSG"}}]}`, `properties.networkFeatures "NSG"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tags, faults := ParseServiceTags("tags.json", []byte(tt.document)); tags != nil || !strings.Contains(faults.Error(), tt.want) {
				t.Errorf("got %v, %v", tags, faults)
			}
		})
	}
}

// Each unknown name was compared with every tag, and its message kept, however many there were.
func TestOnlyTheFirstUnknownNamesGetAHintAndAreRemembered(t *testing.T) {
	tags := parseTags(t, "testdata/servicetags/weekly.json")
	name := func(i int) string { return fmt.Sprintf("Storage.x%d", i) }
	for i := range 3 * maxHints {
		_, problem := tags.Known(name(i))
		if hinted := strings.HasSuffix(problem, "; near is Storage"); hinted != (i < maxHints) || !strings.Contains(problem, "and not this one") {
			t.Fatalf("name %d: %q", i, problem)
		}
	}
	if len(tags.problems) != maxHints {
		t.Errorf("%d messages are kept", len(tags.problems))
	}
	if _, problem := tags.Known(strings.ToUpper(name(0))); !strings.Contains(problem, "near is Storage") {
		t.Errorf("a name that had a hint: %q", problem)
	}
}

func BenchmarkHint(b *testing.B) {
	tags := &ServiceTags{tags: map[string]tag{}}
	for i := range 3000 {
		name := fmt.Sprintf("service%d.region%d", i/60, i%60)
		tags.tags[name] = tag{TagFacts: TagFacts{Name: name}}
	}
	b.ReportAllocs()
	for b.Loop() {
		tags.hint("mainframe77.regio1")
	}
}
