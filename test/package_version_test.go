package test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestThePackagesVersion holds the versions that dpkg and rpm order to what git says of the checkout.
func TestThePackagesVersion(t *testing.T) {
	for _, tt := range []struct{ name, version, want string }{
		{"a tag", "v1.2.3", "1.2.3"},
		{"a candidate is earlier than its release", "v1.2.3-rc.1", "1.2.3~rc.1"},
		{"a commit is later than the tag before it", "v1.2.3-4-gabcdef0", "1.2.3+4.gabcdef0"},
		{"changes that no commit has are named", "v1.2.3-rc.1-4-gabcdef0-dirty", "1.2.3~rc.1+4.gabcdef0+dirty"},
		{"a checkout without tags is earlier than every release", "abcdef0", "0~git19700101000000.abcdef0"},
		{"so is one without git", "unknown", "0~git19700101000000.unknown"},
		{"anything else is refused", "latest", ""},
		{"a revision would be dpkg's", "1_2", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command("../scripts/package", "nowhere", "version")
			c.Env = append(os.Environ(), "VERSION="+tt.version, "SOURCE_DATE_EPOCH=0")
			out, err := c.Output()
			if got := strings.TrimSpace(string(out)); got != tt.want || (err != nil) != (tt.want == "") {
				t.Errorf("VERSION=%s: %q, %v; want %q", tt.version, got, err, tt.want)
			}
		})
	}
}

var release = regexp.MustCompile(`(?m)^## \[(\d[^\]]*)\]`)

// TestTheLastTagIsTheLastRelease: the programs' version comes from the tag, and a person reads the changelog.
func TestTheLastTagIsTheLastRelease(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n## [Unreleased]\n") {
		t.Error("CHANGELOG.md has no [Unreleased]")
	}
	last := ""
	if m := release.FindStringSubmatch(string(text)); m != nil {
		last = m[1]
	}
	tag, err := exec.Command("git", "describe", "--tags", "--abbrev=0").Output()
	if err != nil && last != "" {
		t.Skipf("CHANGELOG.md has release %s, and no tag is at hand to compare with", last)
	}
	if got := strings.TrimPrefix(strings.TrimSpace(string(tag)), "v"); got != last {
		t.Errorf("the last tag is %q, the last release of CHANGELOG.md %q", got, last)
	}
}
