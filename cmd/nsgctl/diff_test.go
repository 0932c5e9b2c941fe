package main

import (
	"regexp"
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
	var comment strings.Builder
	if err := diffMarkdown(&comment, &inspect.RunningDiff{DiffResult: undecided}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{comment.String(), diffSummary(undecided)} {
		if !strings.Contains(text, "1 not decided") {
			t.Errorf("%q does not say that something is not decided", text)
		}
	}
}

// Names come from documents that anybody may have written.
func TestNamesAreNoMarkupOfAComment(t *testing.T) {
	if got, want := markdown("a|b\n<img src=x>@team `c` [d](e)"), `a\|b\\n&#60;img src=x&#62;@<!-- -->team \`+"`c\\`"+` \[d\]\(e\)`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A comment of more than 65,536 characters is refused by GitHub.
func TestACommentOfManyChangesIsCutAtWholeBlocks(t *testing.T) {
	r := &ask.DiffResult{}
	for i := range 300 {
		decided := ask.DiffDecision{Access: "Deny", NetworkSecurityGroup: "nsg", RuleName: strings.Repeat("r", 80)}
		r.Changes = append(r.Changes, ask.DiffChange{Kind: ask.DiffAllowed, Direction: "Inbound", DiffFor: ask.DiffFor{NetworkInterfaces: []string{"nic" + strings.Repeat("x", i%50)}},
			Old: decided, New: decided, Boxes: []ask.DiffBox{{Protocol: "TCP", DestinationPorts: []string{"80"}}}})
	}
	var b strings.Builder
	if err := diffMarkdown(&b, &inspect.RunningDiff{DiffResult: r}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if n := len(text); n > 21_000 || n < 19_000 {
		t.Errorf("%d bytes, want nearly 21,000", n)
	}
	if strings.Count(text, "<details>") != strings.Count(text, "</details>") {
		t.Error("a fold does not end")
	}
	if !regexp.MustCompile(`\n\*\*Left out\*\*, because a comment has no room for it: \d+ of 290 further changes; 300 of 300 changes with all their packets. ` + "`nsgctl diff` shows all.\n$").MatchString(text) {
		t.Errorf("the end does not say what is left out: %s", text[len(text)-300:])
	}
}
