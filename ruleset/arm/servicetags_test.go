package arm

import (
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
		{"no JSON", `{"values": [`, []string{"tags.json: InvalidJson: line 1, column"}},
		{"UTF-16", "\xff\xfe{\x00", []string{"UTF-16"}},
		{"a list", `[]`, []string{"tags.json", "must be an object"}},
		{"another document", `{"name": "NSG1", "properties": {}}`, []string{"tags.json: values: InvalidServiceTagFile", "is it another file?"}},
		{"one page of several", `{"values": [{"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}], "nextLink": "https://next"}`,
			[]string{`nextLink "https://next"`}},
		{"a change number that is none", `{"changeNumber": "x1", "values": []}`, []string{`changeNumber "x1"`, "whole number"}},
		{"a name that is no string", `{"values": [{"name": 7}]}`, []string{"line 1, column", "Name", "number", "must be a string"}},
		{"a tag without a name", `{"values": [{"properties": {}}]}`, []string{"values[0].name"}},
		{"a name that no rule could use", `{"values": [{"name": "10.0.0.0/8"}]}`, []string{`values[0].name "10.0.0.0/8"`}},
		{"one name twice, but for its case", `{"values": [{"name": "Sql"}, {"name": "SQL"}]}`, []string{`serviceTags/SQL: values[1].name "SQL"`, "the tag Sql already"}},
		{"prefixes that are no list", `{"values": [{"name": "Sql", "properties": {"addressPrefixes": "192.0.2.0/24"}}]}`,
			[]string{"serviceTags/Sql: addressPrefixes", "list of strings"}},
		{"every faulty prefix", `{"values": [{"name": "Sql", "properties": {"addressPrefixes": ["192.0.2.0/24", "192.0.2.1/24", "2001:db8::/129", ""]}}]}`,
			[]string{`serviceTags/Sql: addressPrefixes[1] "192.0.2.1/24"`, "host bits are set; the network is 192.0.2.0/24", `addressPrefixes[2] "2001:db8::/129"`, "addressPrefixes[3]"}},
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
		if canonical, problem := tags.Known(strings.ToUpper(of.name)); canonical != of.name || problem != "" {
			t.Errorf("%s: known as %q, %q", of.name, canonical, problem)
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
