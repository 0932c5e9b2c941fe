package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// hostile are texts that mean something in one of the formats.
var hostile = []string{
	"plain", "two\nlines", "carriage\rreturn", "100%", "%0A%25%AZP25", "::error::not mine", "##vso[task.complete result=Failed]", "a,b:c;d]e=f",
	`<b a="1">&amp;]]></b>`, `back\slash \# "quoted" 'single'`, "# SKIP no", "{0} {x}", "[text](https://example.org)", "[unlinked]", "www.example.org", "http://example.org", "see #12 and GH-12", "fd00:100:a:b::1", "ok 2 - mine", "| a | row |", "@team", "\x1b[31mred", "left\u202eright", "é 漢",
}

// reportOf has an entry for each hostile text and level, with the text in every field.
func reportOf() *Report {
	r := &Report{Verb: "lint", Version: "v1", Directory: "/repo"}
	for i, text := range hostile {
		r.Entries = append(r.Entries, Entry{Name: text, Code: "NSG" + text, Level: Level(i % 4), File: "/repo/" + strings.ReplaceAll(text, "/", "-"), Line: i + 1, Column: i,
			Resource: text, Message: "m " + text, Help: text})
	}
	return r
}

func write(t *testing.T, r *Report, format string) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// read gives a text to a program of another language, which prints what it read as JSON.
func read(t *testing.T, text string, into any, program string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not here: %v", program, err)
	}
	c := exec.Command(program, args...)
	c.Stdin = strings.NewReader(text)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s does not read it: %v\n%s", program, err, text)
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestSARIFIsValidAndNamesFilesFromTheWorkingDirectory(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := Entry{Name: "elsewhere", Level: Error, File: "/other/a b%.json"}
	colon := Entry{Name: "colon", Level: Error, File: "/repo/http:x.json", Message: "m"}
	r := reportOf()
	r.Entries = append(r.Entries, elsewhere, colon, Entry{Name: "nowhere", Level: Note}, r.Entries[1])
	for _, r := range []*Report{r, {Verb: "test"}} {
		text := write(t, r, SARIF)
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
	var log sarifLog
	if err := json.Unmarshal([]byte(write(t, r, SARIF)), &log); err != nil {
		t.Fatal(err)
	}
	next := 0
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Level == Pass {
			continue
		}
		got := log.Runs[0].Results[next]
		next++
		if shownBySARIF(got.Message.Text) != e.message() || got.Level != e.Level.String() || got.RuleID != e.Code {
			t.Errorf("%+v became %+v", e, got)
		}
		if got.RuleIndex >= 0 && log.Runs[0].Tool.Driver.Rules[got.RuleIndex].ID != e.Code {
			t.Errorf("%+v points to rule %d", e, got.RuleIndex)
		}
		if e.File == "" {
			continue
		}
		base := &url.URL{Scheme: "file", Path: "/repo/"}
		at, err := base.Parse(got.Locations[0].Physical.Artifact.URI)
		if err != nil || at.Path != e.File {
			t.Errorf("file %q became %q: %v", e.File, got.Locations[0].Physical.Artifact.URI, err)
		}
	}
	if next != len(log.Runs[0].Results) {
		t.Errorf("%d results, want %d", len(log.Runs[0].Results), next)
	}
	if got, want := len(log.Runs[0].Tool.Driver.Rules), 18; got != want {
		t.Errorf("%d rules, want %d: one a code", got, want)
	}
}

// shownBySARIF is what a viewer shows of a plain text message: sections 3.11.5 and 3.11.6 of the standard. It marks what it takes for
// a placeholder or a link.
func shownBySARIF(text string) string {
	text = regexp.MustCompile(`(^|[^\\])\[[^\]]*[^\]\\]\]\([^)]*\)`).ReplaceAllString(text, "LINK")
	if strings.Contains(text, "](") {
		text = strings.NewReplacer(`\[`, "[", `\]`, "]").Replace(text)
	}
	const open, shut = "\x01", "\x02"
	text = strings.NewReplacer("{{", open, "}}", shut).Replace(text)
	text = regexp.MustCompile(`[{}]`).ReplaceAllString(text, "PLACEHOLDER")
	return strings.NewReplacer(open, "{", shut, "}").Replace(text)
}

// What GitHub and Azure DevOps make links and pictures of, behind the renderer of Markdown, is divided by an empty comment.
func TestNamesBecomeNoLinksInMarkdown(t *testing.T) {
	for text, want := range map[string]string{
		"www.example.org":           "www<!-- -->.example.org",
		"a http://b ftp://c":        "a http:/<!-- -->/b ftp:/<!-- -->/c",
		"mailto:a@b.example":        "mailto<!-- -->:a@<!-- -->b.example",
		"@team #12 o/r#3 !7 gh-12":  `@<!-- -->team \#<!-- -->12 o/r\#<!-- -->3 \!<!-- -->7 gh-<!-- -->12`,
		"fd00:100:a::1 and :smile:": `fd00:<!-- -->100:<!-- -->a::1 and :<!-- -->smile:`,
		"[text](url)":               `\[text\]\(url\)`,
		"10.0.0.4:443 -> web-nic":   `10.0.0.4:443 -&#62; web-nic`,
	} {
		if got := EscapeMarkdown(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}

func TestPythonReadsJUnit(t *testing.T) {
	r := reportOf()
	var got []struct{ Name, Class, File, Line, Failure, Output string }
	read(t, write(t, r, JUnit), &got, "python3", "-c", `
import json, sys, xml.etree.ElementTree as xml
suites = xml.fromstring(sys.stdin.buffer.read())
cases = suites.findall("testsuite/testcase")
assert suites.tag == "testsuites"
assert int(suites.get("tests")) == len(cases) == int(suites.find("testsuite").get("tests"))
assert int(suites.get("failures")) == len(suites.findall("testsuite/testcase/failure"))
print(json.dumps([{"name": c.get("name"), "class": c.get("classname"), "file": c.get("file"), "line": c.get("line"),
  "failure": "" if c.find("failure") is None else c.find("failure").get("message") + "\n" + c.find("failure").text,
  "output": c.findtext("system-out") or ""} for c in cases]))`)
	if len(got) != len(r.Entries) {
		t.Fatalf("%d cases, want %d", len(got), len(r.Entries))
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		clean := strings.NewReplacer("\x1b", "\ufffd") // XML has no such character
		if want := clean.Replace(e.Code + " " + e.Name); got[i].Name != want {
			t.Errorf("name %q, want %q", got[i].Name, want)
		}
		if want := clean.Replace(e.Resource); got[i].Class != want {
			t.Errorf("class %q, want %q", got[i].Class, want)
		}
		if fails := got[i].Failure != ""; fails != (e.Level >= Warning) {
			t.Errorf("%s %q: failure %q", e.Level, e.Name, got[i].Failure)
		} else if first, _, _ := strings.Cut(e.Message, "\n"); fails && !strings.HasPrefix(got[i].Failure, clean.Replace(first+"\n"+e.Message)+"\n") {
			t.Errorf("failure %q, want %q", got[i].Failure, e.Message)
		}
		if printed := got[i].Output != ""; printed != (e.Level == Note) {
			t.Errorf("%s %q: output %q", e.Level, e.Name, got[i].Output)
		}
	}
}

func TestPerlReadsTAP(t *testing.T) {
	r := reportOf()
	var got struct {
		Problems []string
		Tests    []struct{ Ok, Description, Directive, YAML string }
	}
	// Many a Perl knows no version after 13. What is new in 14 is not used here.
	text := strings.Replace(write(t, r, TAP), "TAP version 14\n", "TAP version 13\n", 1)
	read(t, text, &got, "perl", "-e", `
use TAP::Parser; use JSON::PP; local $/; my $tap = <STDIN>; my @tests;
my $parser = TAP::Parser->new({ tap => $tap });
while (my $r = $parser->next) {
  push @tests, { Ok => $r->is_actual_ok ? "ok" : "", Description => $r->description, Directive => $r->directive } if $r->is_test;
  $tests[-1]{YAML} = $r->data->{message} if $r->is_yaml;
}
print JSON::PP->new->utf8(0)->encode({ Problems => [ $parser->parse_errors ], Tests => \@tests });`)
	if len(got.Problems) > 0 || len(got.Tests) != len(r.Entries) {
		t.Fatalf("%d tests, want %d: %q", len(got.Tests), len(r.Entries), got.Problems)
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		test := got.Tests[i]
		if (test.Ok == "ok") == (e.Level >= Warning) || test.Directive != "" {
			t.Errorf("%s %q: %+v", e.Level, e.Name, test)
		}
		// The parser leaves escapes as they are.
		if want := "- " + strings.NewReplacer(`\`, `\\`, "#", `\#`).Replace(Printable(e.Code+" "+e.Name)); test.Description != want {
			t.Errorf("description %q, want %q", test.Description, want)
		}
		if want := Printable(strings.ReplaceAll(e.Message, "\n", "; ")); e.Level > Pass && test.YAML != want {
			t.Errorf("message %q, want %q", test.YAML, want)
		}
	}
}

// The order in which actions/runner and azure-pipelines-agent take escapes back: the sign of escapes last.
var (
	fromGitHub = []string{"%0D", "\r", "%0A", "\n", "%3A", ":", "%2C", ",", "%25", "%"}
	fromAzure  = []string{"%0D", "\r", "%0A", "\n", "%5D", "]", "%3B", ";", "%AZP25", "%"}
)

func unescape(text string, pairs []string) string {
	for i := 0; i < len(pairs); i += 2 {
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func TestCommandsOfPipelinesSayWhatEntriesSay(t *testing.T) {
	properties := func(text, separator string, pairs []string) map[string]string {
		m := map[string]string{}
		for _, p := range strings.Split(strings.TrimSuffix(text, separator), separator) {
			key, value, _ := strings.Cut(p, "=")
			m[key] = unescape(value, pairs)
		}
		return m
	}
	r := reportOf()
	github := strings.Split(strings.TrimSuffix(write(t, r, GitHub), "\n"), "\n")
	azure := strings.Split(strings.TrimSuffix(write(t, r, AzureDevOps), "\n"), "\n")
	next := 0
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Level == Pass {
			continue
		}
		message := e.Message + "\n" + e.Resource + "\n" + e.Help
		file := strings.TrimPrefix(e.File, "/repo/")

		head, data, _ := strings.Cut(strings.TrimPrefix(github[next], "::"), "::")
		command, rest, _ := strings.Cut(head, " ")
		got := properties(rest, ",", fromGitHub)
		got["command"], got["message"] = command, unescape(data, fromGitHub)
		want := map[string]string{"command": []string{"", "notice", "warning", "error"}[e.Level], "file": file, "line": number(e.Line), "col": number(e.Column),
			"title": e.Code + " " + e.Name, "message": message}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s\n%s", github[next], d)
		}

		head, data, _ = strings.Cut(strings.TrimPrefix(azure[next], "##vso[task.logissue "), "]")
		got = properties(head, ";", fromAzure)
		got["message"] = unescape(data, fromAzure)
		want = map[string]string{"type": []string{"", "warning", "warning", "error"}[e.Level], "sourcepath": file, "linenumber": number(e.Line),
			"columnnumber": number(e.Column), "code": e.Code, "message": e.Name + ": " + message}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s\n%s", azure[next], d)
		}
		next++
	}
	if len(github) != next || len(azure) != next {
		t.Errorf("%d and %d lines, want %d", len(github), len(azure), next)
	}
}

// A test's history is lost when its name changes with its result.
func TestANameOfItsOwnStandsWithoutTheCode(t *testing.T) {
	r := &Report{Verb: "test", Entries: []Entry{{Name: "nobody enters", Code: "policy-test-fail", Check: "A packet breaks a test", Level: Error, Message: "one\ntwo"}}}
	for format, want := range map[string]string{
		JUnit: `name="nobody enters"`, TAP: "not ok 1 - nobody enters\n", GitHub: "::error title=nobody enters::one%0Atwo\n",
		Markdown: "| **error** | nobody enters | one<br>two |  |\n", SARIF: `"text": "A packet breaks a test"`,
	} {
		if got := write(t, r, format); !strings.Contains(got, want) {
			t.Errorf("%s: no %s in\n%s", format, want, got)
		}
	}
}

func TestMarkdownHasOneRowForEachEntryThatDidNotPass(t *testing.T) {
	r := reportOf()
	lines := strings.Split(strings.TrimSuffix(write(t, r, Markdown), "\n"), "\n")
	if want := "### nsgctl lint: 6 failed, 6 warned, 6 noted, 6 passed"; lines[0] != want {
		t.Errorf("%q, want %q", lines[0], want)
	}
	rows := lines[4:]
	if len(rows) != 18 || !strings.HasPrefix(rows[0], "| **error** |") || !strings.HasPrefix(rows[17], "| **note** |") {
		t.Errorf("%d rows: %s", len(rows), strings.Join(rows, "\n"))
	}
	for _, row := range rows {
		if n := strings.Count(strings.ReplaceAll(row, `\|`, ""), "|"); n != 5 || strings.ContainsAny(row, "\x00\x1b") {
			t.Errorf("%d bars: %s", n, row)
		}
	}
	if got := write(t, &Report{Verb: "lint"}, Markdown); got != "### nsgctl lint: nothing found\n" {
		t.Errorf("%q", got)
	}
}

func TestAnUnknownFormatIsRefused(t *testing.T) {
	if err := (&Report{}).Write(&bytes.Buffer{}, "html"); err == nil || !strings.Contains(err.Error(), "junit") {
		t.Errorf("%v", err)
	}
}

func TestACommentIsCutAtWholeRows(t *testing.T) {
	r := &Report{Verb: "lint"}
	for range 1000 {
		r.Entries = append(r.Entries, Entry{Name: "n", Level: Error, Message: strings.Repeat("m", 100)})
	}
	r.Entries[0].Message = strings.Repeat("m", maxComment)
	text := write(t, r, Markdown)
	if n := len(text); n > maxComment || n < maxComment-1000 {
		t.Errorf("%d bytes, want nearly %d", n, maxComment)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	rows := strings.Count(text, "\n| **error** |")
	if want := fmt.Sprintf("**Left out**, because a comment has no room for it: %d of 1000 rows of the table. `nsgctl lint` shows all.", 1000-rows); rows == 0 || lines[len(lines)-1] != want {
		t.Errorf("%d rows, and %q, want %q", rows, lines[len(lines)-1], want)
	}
	for _, line := range lines[4 : 4+rows] {
		if !strings.HasSuffix(line, " |") {
			t.Errorf("a row is cut: %q", line)
		}
	}
}
