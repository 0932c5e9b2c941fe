package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"go.yaml.in/yaml/v3"
)

// pipelines are what other repositories' pipelines use, from here.
var pipelines = []string{"../../deploy/ci/check", "../../deploy/ci/github/action.yml", "../../deploy/ci/azure-devops/steps.yml", "../../.pre-commit-hooks.yaml"}

// ciUse is nsgctl with a verb in a script or as a hook's entry.
var (
	ciUse    = regexp.MustCompile(`(?m)(?:^\s*(?:run \S+)|entry: nsgctl) ([a-z]+)\b(.*)$`)
	ciFlag   = regexp.MustCompile(`\s(--[a-z-]+)`)
	ciFormat = regexp.MustCompile(`-o ([a-z]+)`)
	// ciAnnotations is the format that a pipeline gives the script.
	ciAnnotations = regexp.MustCompile(`ANNOTATIONS: ([a-z]+)`)
)

func TestPipelinesAreYAMLAndNameWhatNsgctlHas(t *testing.T) {
	uses := 0
	var missing []string
	for _, path := range pipelines {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(path) != "" {
			decoder := yaml.NewDecoder(bytes.NewReader(text))
			for err == nil {
				var document any
				err = decoder.Decode(&document)
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, format := range ciAnnotations.FindAllStringSubmatch(string(text), -1) {
			text = append(text, "\nrun - lint -o "+format[1]+"\nrun - test -o "+format[1]...)
		}
		for _, use := range ciUse.FindAllStringSubmatch(string(text), -1) {
			uses++
			c, _, err := newRoot().Find(use[1:2])
			if err != nil || !c.HasParent() {
				missing = append(missing, use[1])
				continue
			}
			for _, flag := range ciFlag.FindAllStringSubmatch(use[2], -1) {
				if c.InheritedFlags().Lookup(flag[1][2:]) == nil && c.Flags().Lookup(flag[1][2:]) == nil {
					t.Errorf("%s: nsgctl %s has no %s", path, use[1], flag[1])
				}
			}
			for _, format := range ciFormat.FindAllStringSubmatch(use[2], -1) {
				if !slices.Contains(formatsOf(c), format[1]) {
					missing = append(missing, use[1]+" -o "+format[1])
				}
			}
		}
	}
	if uses < 8 {
		t.Errorf("%d uses of nsgctl found: too few", uses)
	}
	for _, what := range missing {
		t.Errorf("there is no nsgctl %s", what)
	}
}

// fakeNsgctl notes its arguments, answers with them, and ends as the environment says.
const fakeNsgctl = `#!/bin/sh
echo "answer of $*"
case "$*" in *"--fail-on never"*) exit 0;; esac
case $1 in lint) exit ${LINT:-0};; diff) exit ${DIFF:-0};; test) exit ${TEST:-0};; esac`

func TestTheCheckOfAPipeline(t *testing.T) {
	for _, program := range []string{"bash", "git"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here", program)
		}
	}
	check, err := filepath.Abs("../../deploy/ci/check")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(lab.WriteTo(dir), os.WriteFile(filepath.Join(dir, "nsgctl"), []byte(fakeNsgctl), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "policy"}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "base"}} {
		c := exec.Command("git", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	const diff = "answer of diff --git HEAD policy -o markdown"
	tests := []struct {
		name    string
		paths   string
		env     []string
		code    int
		comment []string // parts
		not     string   // no part of the comment
		files   []string
	}{
		{"a finding fails", "policy", []string{"BASE=HEAD", "LINT=1"}, 1, []string{"<!-- nsgctl -->\n", diff, "answer of lint policy -o markdown"}, "", []string{"lint.sarif"}},
		{"a change fails when it is said to", "policy", []string{"BASE=HEAD", "DIFF=1", "DIFF_FAIL_ON=widened"}, 1, []string{diff + " --fail-on widened"}, "", nil},
		{"the worst exit code counts", "policy", []string{"BASE=HEAD", "LINT=2", "DIFF=1"}, 2, nil, "", nil},
		{"nothing found", "policy", []string{"BASE=HEAD"}, 0, nil, "answer of test", nil},
		{"nothing to compare with", "policy", nil, 0, []string{"answer of lint"}, "diff", nil},
		{"a folder beside a new one is compared", "new policy", []string{"BASE=HEAD"}, 0, []string{"answer of diff --git HEAD new policy"}, "is new", nil},
		{"a folder that is new", "new", []string{"BASE=HEAD"}, 0, []string{"new is new"}, "diff", nil},
		{"a folder that is new widens", "new", []string{"BASE=HEAD", "DIFF_FAIL_ON=widened"}, 1, []string{"new is new"}, "diff", nil},
		{"tests fail", "policy", []string{"TESTS=a.yaml b.yaml", "TEST=1", "ANNOTATIONS=github"}, 1, []string{"answer of test a.yaml b.yaml -o markdown"}, "", []string{"junit.xml", "test.sarif"}},
		{"options are those of lint and diff", "policy", []string{"BASE=HEAD", "OPTIONS=--service-tags F"}, 0, []string{"diff --git HEAD policy --service-tags F -o"}, "", nil},
		{"a base that is not there", "policy", []string{"BASE=nowhere"}, 2, nil, "", nil},
		{"no path", "", nil, 2, nil, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reports := filepath.Join(t.TempDir(), "reports")
			c := exec.Command(check, append([]string{reports}, strings.Fields(tt.paths)...)...)
			c.Dir, c.Env = dir, append(append(os.Environ(), "NSGCTL="+filepath.Join(dir, "nsgctl")), tt.env...)
			out, err := c.CombinedOutput()
			if code := c.ProcessState.ExitCode(); code != tt.code {
				t.Fatalf("exit code %d, want %d: %v\n%s", code, tt.code, err, out)
			}
			comment, _ := os.ReadFile(filepath.Join(reports, "comment.md"))
			for _, part := range tt.comment {
				if !strings.Contains(string(comment), part) {
					t.Errorf("the comment lacks %q:\n%s", part, comment)
				}
			}
			if tt.not != "" && strings.Contains(string(comment), tt.not) {
				t.Errorf("the comment has %q:\n%s", tt.not, comment)
			}
			for _, file := range tt.files {
				if _, err := os.Stat(filepath.Join(reports, file)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// fakeCurl answers as Azure DevOps does, and notes what is written.
const fakeCurl = `#!/bin/sh
case "$*" in
*--data*) printf '%s\n' "$*" >>"$WRITTEN";;
*connectionData*) echo '{"authenticatedUser":{"id":"me"}}';;
*) cat "$THREADS";;
esac`

// Anybody may begin a comment as ours begins.
func TestTheCommentOfAzureDevOpsReplacesOnlyItsOwn(t *testing.T) {
	for _, program := range []string{"bash", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here", program)
		}
	}
	text, err := os.ReadFile("../../deploy/ci/azure-devops/steps.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?s)  - bash: \|\n(.*?)\n    displayName: Comment the pull request`).FindSubmatch(text)
	if found == nil {
		t.Fatal("there is no step that comments")
	}
	thread := func(id, author, content string) string {
		return `{"id":` + id + `,"comments":[{"author":{"id":"` + author + `"},"content":"` + content + `"}]}`
	}
	tests := []struct{ name, threads, want string }{
		{"somebody else's comment with the marker stays", thread("1", "you", "<!-- nsgctl --> mine"), `--data {"comments": [{"parentCommentId": 0,`},
		{"its own one is replaced", thread("1", "you", "<!-- nsgctl -->") + "," + thread("2", "me", "<!-- nsgctl -->"), "/threads/2/comments/1?"},
		{"another comment of its own stays", thread("2", "me", "hello") + `,{"id":3,"comments":[]}`, `--data {"comments": [{"parentCommentId": 0,`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			written := filepath.Join(dir, "written")
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "curl"), []byte(fakeCurl), 0o755), os.Mkdir(filepath.Join(dir, "nsgctl-reports"), 0o755),
				os.WriteFile(filepath.Join(dir, "nsgctl-reports", "comment.md"), []byte("<!-- nsgctl -->\n"), 0o644),
				os.WriteFile(filepath.Join(dir, "threads"), []byte(`{"value":[`+tt.threads+`]}`), 0o644)); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("bash", "-c", string(found[1]))
			c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "THREADS="+filepath.Join(dir, "threads"), "WRITTEN="+written, "TOKEN=t", "AGENT_TEMPDIRECTORY="+dir,
				"SYSTEM_COLLECTIONURI=https://host.invalid/", "SYSTEM_TEAMPROJECTID=p", "BUILD_REPOSITORY_ID=r", "SYSTEM_PULLREQUEST_PULLREQUESTID=7")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got, err := os.ReadFile(written)
			if err != nil || strings.Count(string(got), "\n") != 1 || !strings.Contains(string(got), tt.want) {
				t.Errorf("%v: %s, want %s", err, got, tt.want)
			}
		})
	}
}
