package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFaultsOfWaiversNameTheLineAndWhatIsAllowed(t *testing.T) {
	const good = "- {code: NSG201, resource: networkSecurityGroups/web, reason: r}\n"
	for _, c := range []struct{ name, text, want string }{
		{"an unknown key", "waivers:\n- {code: NSG201, resorce: x, reason: r}\n", `w.yaml:2:18: unknown key "resorce": allowed are code, resource, reason, until; near is resource`},
		{"another document", "- 1\n", "w.yaml:1:1: allowed is a mapping with the keys waivers"},
		{"nothing", "", "w.yaml:1:1: allowed is a mapping with the keys waivers"},
		{"no reason", "waivers:\n- {code: NSG201, resource: x}\n", "w.yaml:2:3: waivers[0].reason: missing"},
		{"a code that there is not", "waivers:\n" + good + "- {code: NSG999, resource: x, reason: r}\n", `w.yaml:3:3: waivers[1].code "NSG999": allowed are`},
		{"a day that there is not", "waivers:\n- {code: NSG201, resource: x, reason: r, until: 2027-02-30}\n", `w.yaml:2:3: waivers[0].until "2027-02-30": allowed is a day`},
		{"a list in the place of a text", "waivers:\n- {code: [NSG201], resource: x, reason: r}\n", "w.yaml:2:10: waivers[0].code: allowed is a text"},
		{"a key twice", "waivers:\n- {code: NSG201, code: NSG202, resource: x, reason: r}\n", `w.yaml:2:18: key "code" is given twice`},
		{"too many", "waivers:\n" + strings.Repeat(good, maxWaivers+1), "w.yaml:2:1: waivers: 10001 of them; allowed are 10000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseWaivers("w.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if got, err := parseWaivers("w.yaml", []byte("waivers:\n"+good)); err != nil || len(got) != 1 || got[0].Line != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAFileOfWaiversIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.yaml")
	if err := os.WriteFile(path, make([]byte, maxWaiverBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readWaivers(path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
	if _, err := readWaivers(t.TempDir()); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("a folder: %v", err)
	}
}
