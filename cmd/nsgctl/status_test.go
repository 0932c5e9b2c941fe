package main

import (
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/control"
)

// A service tag file without a change number was shown as "change number , 4 tags".
func TestStatusLeavesOutAChangeNumberThatTheFileLacks(t *testing.T) {
	for number, want := range map[string]string{"": "tags.json: 4 tags", "376": "tags.json: change number 376, 4 tags"} {
		var out strings.Builder
		if err := statusTable(&out, &control.Status{ServiceTags: &control.ServiceTags{File: "tags.json", ChangeNumber: number, Tags: 4}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
