package arm

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A policy of several files is read while somebody replaces them: the result is one state, the old one or the new one.
func TestAPolicyIsReadAsOneState(t *testing.T) {
	group := func(name, rule string) string {
		return fmt.Sprintf(`{"type": "Microsoft.Network/networkSecurityGroups", "name": %q, "properties": {"securityRules": [{"name": %q, "properties":
			{"protocol": "Tcp", "sourcePortRange": "*", "destinationPortRange": "443", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "access": "Allow", "priority": 100, "direction": "Inbound"}}]}}`, name, rule)
	}
	const template = `{"$schema": "s", "parameters": {"p": {"type": "string", "defaultValue": "none"}}, "resources": [{"type": "Microsoft.Network/applicationSecurityGroups", "name": "[parameters('p')]"},
		{"type": "Microsoft.Resources/deployments", "name": "d", "properties": {"templateLink": {"relativePath": "x/linked.json"}}}]}`
	linked := func(name string) string {
		return fmt.Sprintf(`{"resources": [{"type": "Microsoft.Network/applicationSecurityGroups", "name": %q}]}`, name)
	}
	old := time.Now().Add(-time.Hour)
	for name, change := range map[string]func(write func(name, text string), dir string) error{
		"a file that was read": func(write func(name, text string), dir string) error { write("a.json", group("a", "new")); return nil },
		"a file that was replaced by one as old": func(write func(name, text string), dir string) error {
			write("a.tmp", group("a", "new"))
			return os.Rename(filepath.Join(dir, "a.tmp"), filepath.Join(dir, "a.json"))
		},
		"a file that is new": func(write func(name, text string), dir string) error { write("c.json", group("c", "new")); return nil },
		"a file that goes":   func(write func(name, text string), dir string) error { return os.Remove(filepath.Join(dir, "a.json")) },
		"a linked template": func(write func(name, text string), dir string) error {
			write("x/linked.json", linked("other"))
			return nil
		},
		"a parameters file": func(write func(name, text string), dir string) error {
			write("t.parameters.json", `{"p": {"value": "given"}}`)
			return nil
		},
		"the service tag file": func(write func(name, text string), dir string) error {
			write("../tags.json", strings.Replace(testTags, "1", "2", 1))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "policy")
			changing := false
			write := func(name, text string) {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if replaced := strings.HasSuffix(name, ".tmp"); replaced || !changing {
					if err := os.Chtimes(path, old, old); err != nil {
						t.Fatal(err)
					}
				}
			}
			write("a.json", group("a", "old"))
			write("b.json", group("b", "old"))
			write("t.json", template)
			write("x/linked.json", linked("one"))
			write("z.json", "[]")
			write("../tags.json", testTags)
			r := NewReader(filepath.Join(dir, "../tags.json"), dir)
			var pauses []time.Duration
			r.pause = func(d time.Duration) { pauses = append(pauses, d) }
			others := make(chan string, 100)
			var once sync.Once
			r.open = func(file string) ([]byte, fs.FileInfo, error) {
				data, info, err := readRegular(file)
				if filepath.Base(file) != "z.json" {
					others <- file
					return data, info, err
				}
				once.Do(func() { // once the others are read
					for range 5 {
						<-others
					}
					changing = true
					if err := change(write, dir); err != nil {
						t.Error(err)
					}
				})
				return data, info, err
			}
			out := r.Read()
			if len(out.Faults) > 0 || len(out.Unresolved) > 0 {
				t.Fatal(out.Faults, out.Unresolved)
			}
			fresh := NewReader(filepath.Join(dir, "../tags.json"), dir).Read()
			if got, want := summary(out), summary(fresh); got != want || len(pauses) != 1 || pauses[0] != firstPause {
				t.Errorf("read %s, is %s, after pauses of %v", got, want, pauses)
			}
		})
	}
}

const testTags = `{"changeNumber": 1, "cloud": "Public", "values": [{"name": "Storage", "id": "Storage", "properties": {"changeNumber": 1, "region": "", "addressPrefixes": ["192.0.2.0/24"]}}]}`

func summary(d *Documents) string {
	var b strings.Builder
	for _, g := range d.Set.NetworkSecurityGroups {
		fmt.Fprint(&b, g.Name, " ", g.Rules[0].Name, "; ")
	}
	for _, g := range d.Set.ApplicationSecurityGroups {
		fmt.Fprint(&b, g.Name, "; ")
	}
	return b.String()
}

func TestAPolicyThatNeverSettlesIsAFault(t *testing.T) {
	dir := policyOf(t, map[string]string{"a.json": asgDocument("web")})
	r := NewReader("", dir)
	pauses := time.Duration(0)
	r.pause = func(d time.Duration) { pauses += d }
	n := 0
	r.open = func(file string) ([]byte, fs.FileInfo, error) {
		data, info, err := readRegular(file)
		n++
		if err := os.WriteFile(file, []byte(asgDocument("web")+strings.Repeat(" ", n)), 0o600); err != nil {
			t.Fatal(err)
		}
		return data, info, err
	}
	faults := r.Read().Faults
	if len(faults) != 1 || faults[0].File != filepath.Join(dir, "a.json") || !strings.Contains(faults[0].Message, "it changed while the policy was read, 10 times") {
		t.Errorf("%v", faults)
	}
	if pauses == 0 || pauses > maxTries*lastPause {
		t.Errorf("it paused for %v", pauses)
	}
}

// A file of groups whose times are those of its last reading is not read. Nobody can set the time of the last change back.
func TestAFileThatIsStillTheSameIsNotRead(t *testing.T) {
	dir := policyOf(t, map[string]string{"a.json": groupDocument("a", fromPrefix("Internet")), "b.json": groupDocument("b", fromPrefix("Internet"))})
	r := NewReader("", dir)
	var mu sync.Mutex
	var opened []string // guarded by mu
	r.open = func(file string) ([]byte, fs.FileInfo, error) {
		mu.Lock()
		defer mu.Unlock()
		opened = append(opened, filepath.Base(file))
		return readRegular(file)
	}
	read := func(want ...string) *Documents {
		t.Helper()
		opened = nil
		d := r.Read()
		if len(d.Faults) > 0 {
			t.Fatal(d.Faults)
		}
		slices.Sort(opened)
		if !slices.Equal(slices.Compact(opened), want) {
			t.Errorf("%v were opened, want %v", opened, want)
		}
		return d
	}
	read("a.json", "b.json")
	read("a.json", "b.json") // they were young
	r.now = func() time.Time { return time.Now().Add(time.Hour) }
	first := read("a.json", "b.json")
	second := read()
	if first.group(t, "a") != second.group(t, "a") {
		t.Error("the group of a file that was not read is another one")
	}
	if _, line, _ := second.RulePosition(second.group(t, "a"), "r", ""); line == 0 {
		t.Error("no place of a rule whose file was not read")
	}
	file := filepath.Join(dir, "a.json")
	info, err := os.Stat(file)
	if err == nil {
		err = os.WriteFile(file, []byte(groupDocument("a", fromPrefix("10.1.2.3"))), 0o600) // of the same length
	}
	if err == nil {
		err = os.Chtimes(file, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, line, _ := second.RulePosition(second.group(t, "a"), "r", ""); line == 0 {
		t.Error("the place of a rule is not remembered")
	}
	if third := read("a.json"); third.group(t, "a").Rules[0].Source.Tag != "" {
		t.Error("a file that has changed was taken for the same")
	}
}

// The times of two writes may be the same, as the kernel's clock ticks.
func TestAFileThatChangesWithinAClockTickIsNoticed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.json")
	now := time.Now()
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, now, now); err != nil {
			t.Fatal(err)
		}
	}
	write("[1]")
	s := &source{open: readRegular, now: time.Now, seen: map[string]seenFile{}}
	if _, err := s.read(file); err != nil {
		t.Fatal(err)
	}
	if changed := s.changed(); changed != "" {
		t.Errorf("%s has not changed", changed)
	}
	write("[2]")
	if changed := s.changed(); changed != file {
		t.Errorf("changed: %q", changed)
	}
}
