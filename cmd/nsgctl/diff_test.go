package main

import (
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

func TestWhatIsNotDecidedFails(t *testing.T) {
	undecided := &ask.DiffResult{Undecided: []ask.DiffUndecided{{Box: &ask.DiffBox{}}}}
	for failOn, want := range map[string]bool{"": false, failWidened: true, failNarrowed: true, failAny: true} {
		if f := (&diffFlags{failOn: failOn}); f.fails(undecided) != want {
			t.Errorf("--fail-on %q: %v, want %v", failOn, !want, want)
		}
	}
	for _, text := range []string{diffMarkdown(&inspect.RunningDiff{DiffResult: undecided}), diffSummary(undecided)} {
		if !strings.Contains(text, "1 not decided") {
			t.Errorf("%q does not say that something is not decided", text)
		}
	}
}

// Names come from documents that anybody may have written.
func TestNamesAreNoMarkupOfAComment(t *testing.T) {
	if got, want := markdown("a|b\n<img src=x>@team `c` [d](e)"), `a\|b\\n&#60;img src=x&#62;&#64;team \`+"`c\\`"+` \[d\]\(e\)`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
