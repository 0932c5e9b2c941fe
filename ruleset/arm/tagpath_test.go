package arm

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAServiceTagFileThatNobodyNamesIsFound(t *testing.T) {
	there := filepath.Join(t.TempDir(), "tags.json")
	if whereThere(there) != "" {
		t.Error("a file that is not there is read")
	}
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if whereThere(there) != there {
		t.Error("a file that is there is not read")
	}
	for _, tt := range []struct{ name, given, variable, want string }{
		{"the given one holds", "a.json", "b.json", "a.json"},
		{"the environment's", "", "b.json", "b.json"},
		{"the environment's none", "", "", ""},
	} {
		t.Setenv(ServiceTagsVariable, tt.variable)
		if got := DefaultServiceTags(tt.given); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	os.Unsetenv(ServiceTagsVariable) // t.Setenv gives it back
	if got := DefaultServiceTags(""); got != whereThere(ServiceTagsPath) {
		t.Errorf("no variable: %q", got)
	}
}

// The content is parsed once, but a new copy of the same is as young as it is.
func TestTheAgeOfAServiceTagFileIsThatOfTheLastReading(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tags.json")
	if err := os.WriteFile(file, []byte(`{"changeNumber": 1, "cloud": "Public", "values": [{"name": "A", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := NewReader(file)
	for _, day := range []int{1, 8} {
		written := time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(file, written, written); err != nil {
			t.Fatal(err)
		}
		if r.Read(); r.ServiceTags() == nil || !r.ServiceTags().Written.Equal(written) {
			t.Errorf("got %+v, want the time %v", r.ServiceTags(), written)
		}
	}
}
