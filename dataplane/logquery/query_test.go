package logquery

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var hour = time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC)

// nsg2 is a record of version 2 with tuples of one rule.
func nsg2(group, rule string, tuples ...string) string {
	return fmt.Sprintf(`{"category":"NetworkSecurityGroupFlowEvent","resourceId":"/SUBSCRIPTIONS/1/NETWORKSECURITYGROUPS/%s","properties":{"Version":2,"flows":[{"rule":%q,"flows":[{"mac":"000D3A000001","flowTuples":["%s"]}]}]}}`,
		group, rule, strings.Join(tuples, `","`))
}

// tuple is one of version 2.
func tuple(at time.Time, source, destination string, port int, decision string) string {
	return fmt.Sprintf("%d,%s,%s,40000,%d,T,I,%s,,,,", at.Unix(), source, destination, port, decision)
}

func write(t *testing.T, dir string, at time.Time, records ...string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "resourceId=X", at.Format("y=2006/m=01/d=02/h=15/m=00"), "macAddress=000D3A000001", "PT1H.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"records":[`+strings.Join(records, ",")+`]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func find(t *testing.T, q Question) *Result {
	t.Helper()
	r, err := Find(t.Context(), &q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRowsAreFoundByTimeAndFilter(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, hour, nsg2("NSG1", "UserRule_AllowHttp", tuple(hour.Add(time.Minute), "203.0.113.10", "10.0.1.4", 80, "A,B")),
		nsg2("NSG1", "DefaultRule_DenyAllInBound", tuple(hour.Add(2*time.Minute), "203.0.113.11", "10.0.1.4", 22, "D,")))
	write(t, dir, hour.Add(5*time.Hour), nsg2("NSG2", "DefaultRule_DenyAllInBound", tuple(hour.Add(5*time.Hour+time.Minute), "203.0.113.12", "10.0.1.5", 22, "D,")))
	for _, tt := range []struct {
		name     string
		question Question
		want     int
		files    int
	}{
		{"all", Question{}, 3, 2},
		{"denied ones", Question{Filter: "verdict deny"}, 2, 2},
		{"of a rule", Question{Filter: "rule AllowHttp"}, 1, 2},
		{"of a group", Question{Filter: "nsg NSG2"}, 1, 2},
		{"a port and an address", Question{Filter: "dst port 22 and src host 203.0.113.11"}, 1, 2},
		{"beginnings", Question{Filter: "flow new"}, 1, 2},
		{"late ones, without the early file", Question{Since: hour.Add(4 * time.Hour)}, 1, 1},
		{"early ones, without the late file", Question{Until: hour.Add(time.Minute)}, 1, 1},
		{"a name that is nowhere", Question{Filter: "rule nosuch"}, 0, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.question.Paths = []string{dir}
			if r := find(t, tt.question); len(r.Rows) != tt.want || r.Matched != uint64(tt.want) || r.Files != tt.files || len(r.Faults) > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
	r := find(t, Question{Paths: []string{dir}, Filter: "port 80"}).Rows[0]
	if r.State != "begin" || r.Access != "Allow" || r.Direction != "Inbound" || r.Protocol != "TCP" || r.NetworkSecurityGroup != "NSG1" || r.RuleName != "AllowHttp" || !r.Time.Equal(hour.Add(time.Minute)) {
		t.Errorf("%+v", r)
	}
}

func TestTheNewestRowsAreListedAndAllAreCounted(t *testing.T) {
	dir := t.TempDir()
	var tuples []string
	for i := range 50 {
		tuples = append(tuples, tuple(hour.Add(time.Duration(i*7%50)*time.Second), "203.0.113.10", "10.0.1.4", i, "D,"))
	}
	write(t, dir, hour, nsg2("NSG1", "UserRule_R", tuples...))
	r := find(t, Question{Paths: []string{dir}, Limit: 3})
	if r.Matched != 50 || len(r.Rows) != 3 {
		t.Fatalf("%+v", r)
	}
	for i, row := range r.Rows {
		if want := hour.Add(time.Duration(47+i) * time.Second); !row.Time.Equal(want) {
			t.Errorf("row %d is of %v, want %v", i, row.Time, want)
		}
	}
}

func TestWhatIsNoFlowLogIsToldAndTheRestIsRead(t *testing.T) {
	dir := t.TempDir()
	good := nsg2("NSG1", "UserRule_R", tuple(hour, "203.0.113.10", "10.0.1.4", 80, "D,"))
	write(t, dir, hour, good)
	cut := write(t, dir, hour.Add(time.Hour), good, good)
	text, err := os.ReadFile(cut)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, text[:len(text)-20], 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, dir, hour.Add(2*time.Hour), nsg2("NSG1", "UserRule_R", "rubbish"))
	if err := os.WriteFile(filepath.Join(dir, "README.txt"), []byte("no log"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range maxFaults + 2 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("other%d.json", i)), []byte("[]"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := find(t, Question{Paths: []string{dir}})
	if r.Matched != 2 || r.Malformed != 1 || len(r.Faults) != maxFaults || r.MoreFaults != 3 {
		t.Errorf("%+v", r)
	}
}

func TestQuestionsThatCanNotBeMetAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name     string
		question Question
		want     string
	}{
		{"no folder", Question{}, "folder: none is given"},
		{"a folder that is not there", Question{Paths: []string{"/nosuch"}}, "nosuch"},
		{"a filter that is none", Question{Paths: []string{"."}, Filter: "port"}, "filter: column"},
		{"a network interface", Question{Paths: []string{"."}, Filter: "not nic vm1-nic"}, `filter: nic "vm1-nic": no network interface is named here`},
		{"too many rows", Question{Paths: []string{"."}, Limit: MaxLimit + 1}, "limit: \"100001\": allowed are 1 to 100000"},
		{"an end before its beginning", Question{Paths: []string{"."}, Since: hour, Until: hour.Add(-time.Second)}, "until: 2026-03-04T04:59:59Z: it is before since"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Find(t.Context(), &tt.question); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
