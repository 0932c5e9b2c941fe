package flowlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// records reads a file with an ordinary JSON reader.
func records(t *testing.T, path string) (list []json.RawMessage) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Records []json.RawMessage }
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return file.Records
}

// appendToFile adds a record to a file, which it makes if there is none.
func appendToFile(path string, record []byte) (grown int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return appendRecord(f, record)
}

func openRoot(t *testing.T, path string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestAFileIsWholeAfterEachRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), hourFile)
	size := int64(0)
	for n := 1; n <= 3; n++ {
		grown, err := appendToFile(path, fmt.Appendf(nil, `{"n":%d}`, n))
		if err != nil {
			t.Fatal(err)
		}
		size += grown
		if list := records(t, path); len(list) != n || string(list[n-1]) != fmt.Sprintf(`{"n":%d}`, n) {
			t.Errorf("%s after %d records", list, n)
		}
		if info, _ := os.Stat(path); info.Size() != size {
			t.Errorf("%d bytes, told %d", info.Size(), size)
		}
	}
}

// Whatever part of a write has reached the file, the records before it stay and the next one follows
// them.
func TestAFileThatWasCutAnywhereIsMended(t *testing.T) {
	path := filepath.Join(t.TempDir(), hourFile)
	for _, r := range []string{`{"a":["x"]}`, `{"b":["y]}"]}`} {
		if _, err := appendToFile(path, []byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		for _, rest := range []string{"", strings.Repeat("\x00", 5)} {
			if err := os.WriteFile(path, append(whole[:n:n], rest...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := bytes.Count(whole[:n], []byte("}\n")) - bytes.Count(whole[:n], []byte("\n]}\n")) + 1
			if n == len(whole) && rest == "" {
				want = 3
			}
			if _, err := appendToFile(path, []byte(`{"c":1}`)); err != nil {
				if n < len(opening) && rest != "" && errors.Is(err, errForeign) {
					continue
				}
				t.Fatalf("cut at %d: %v", n, err)
			}
			if list := records(t, path); len(list) != want {
				t.Errorf("cut at %d: %d records, want %d", n, len(list), want)
			}
		}
	}
}

const appendForever = "NSGD_FLOWLOG_APPEND"

// appendUntilKilled is the process that the next test kills.
func appendUntilKilled(path string) {
	for n := 0; ; n++ {
		if _, err := appendToFile(path, fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n, strings.Repeat("]}", 40_000))); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

func TestAfterAKillAFileIsMendedAndGoesOn(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: DefaultMaxSize}
	hour := nsgContainer + "/resourceId=/N/y=2026/m=01/d=01/h=00/m=00/macAddress=0/" + hourFile
	path := filepath.Join(s.folder, hour)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for range 10 {
		command := exec.Command(self)
		command.Env = append(os.Environ(), appendForever+"="+path)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		from := s.size.Load()
		eventually(t, "it writes", func() bool {
			now, err := os.Stat(path)
			return err == nil && now.Size() > from+200_000
		})
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		command.Wait()
		s.close()
		if err := s.append(&block{path: hour, record: []byte(`{"n":-1}`)}); err != nil {
			t.Fatal(err)
		}
		list := records(t, path)
		if len(list) <= before+1 {
			t.Errorf("%d records after %d", len(list), before)
		}
		before = len(list)
		if info, _ := os.Stat(path); s.size.Load() != info.Size() {
			t.Errorf("size %d, is %d", s.size.Load(), info.Size())
		}
	}
}

// blockOf makes a record of an hour.
func blockOf(l *flowLog, t time.Time, n, size int) *block {
	return &block{log: l, path: nsgContainer + "/resourceId=/N/" + hourPath(t) + "/macAddress=0/" + hourFile, rows: 1,
		record: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, n, strings.Repeat("x", size))}
}

func TestTheOldestFilesGoWhenAFolderIsTooLarge(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: 100_000}
	l := &flowLog{}
	for n := range 50 {
		if err := s.append(blockOf(l, midnight.Add(time.Duration(n)*time.Hour), n, 5000)); err != nil {
			t.Fatal(err)
		}
	}
	var sum int64
	var hours []string
	if err := s.list(func(h hourly) error { sum += h.size; hours = append(hours, h.hour); return nil }); err != nil {
		t.Fatal(err)
	}
	if sum != s.size.Load() || sum > s.limit || sum < s.limit*8/10 {
		t.Errorf("%d bytes, told %d, of %d", sum, s.size.Load(), s.limit)
	}
	if int(s.deleted.Load()) != 50-len(hours) || hours[0] <= "y=2026/m=03/d=02" || hours[len(hours)-1] != "y=2026/m=03/d=03/h=01" {
		t.Errorf("%d deleted, left %v", s.deleted.Load(), hours)
	}
	if _, err := os.Stat(filepath.Join(s.folder, nsgContainer, "resourceId=/N/y=2026/m=03/d=01")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty day is left: %v", err)
	}
}

func TestWhatIsNoFlowLogIsSetAside(t *testing.T) {
	s := &store{folder: t.TempDir(), limit: 100_000}
	b := blockOf(&flowLog{}, midnight, 1, 10)
	path := filepath.Join(s.folder, b.path)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("my notes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.append(b); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path + foreignSuffix); string(text) != "my notes\n" || len(records(t, path)) != 1 {
		t.Errorf("%q, %v", text, err)
	}
}

// Whoever may read a file may give it a second name elsewhere. That stopped all logs of the folder.
func TestAFileWithASecondNameIsSetAside(t *testing.T) {
	dir, b := t.TempDir(), blockOf(&flowLog{}, midnight, 1, 10)
	path, second := filepath.Join(dir, b.path), filepath.Join(t.TempDir(), "second")
	for range 2 {
		s := &store{folder: dir, limit: 100_000}
		if err := s.append(b); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if n := len(records(t, path)); n != 1 {
			t.Errorf("%d records", n)
		}
		if err := os.Link(path, second); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if n := len(records(t, second)); n != 1 {
		t.Errorf("%d records under the second name", n)
	}
}

// Two stores of one folder would each count only their own files.
func TestAFolderThatIsWrittenInTwoWaysIsOne(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, midnight, Log{Version: NSG, Folder: folder}, Log{Version: VNet, Folder: folder + "/"})
	if n := len(r.recorder.stores); n != 1 {
		t.Errorf("%d stores", n)
	}
	r.end()
}
