package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/schema/schematest"
)

func TestFaultsOfWaiversNameTheLineAndWhatIsAllowed(t *testing.T) {
	const good = "- {code: NSG201, resource: networkSecurityGroups/web, reason: r}\n"
	read := func(text string) error {
		t.Helper()
		path := filepath.Join(t.TempDir(), "w.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readWaivers(path)
		if err == nil && (len(got) != 1 || got[0].Line != 2 || got[0].File != path) {
			t.Errorf("%+v", got)
		}
		return err
	}
	for _, c := range []struct{ name, text, want string }{
		{"an unknown key", "waivers:\n- {code: NSG201, resorce: x, reason: r}\n", `w.yaml:2:18: waivers[0]: unknown key "resorce": allowed are code, resource, reason, until; near is resource`},
		{"another document", "- 1\n", "w.yaml:1:1: a list: allowed are the keys waivers"},
		{"nothing", "", "w.yaml: the file is empty"},
		{"no reason", "waivers:\n- {code: NSG201, resource: x}\n", "w.yaml:2:3: waivers[0].reason: missing"},
		{"a code that there is not", "waivers:\n" + good + "- {code: NSG999, resource: x, reason: r}\n", `w.yaml:3:3: waivers[1].code "NSG999": allowed are`},
		{"a day that there is not", "waivers:\n- {code: NSG201, resource: x, reason: r, until: 2027-02-30}\n", `w.yaml:2:3: waivers[0].until "2027-02-30": allowed is a day`},
		{"a list in the place of a text", "waivers:\n- {code: [NSG201], resource: x, reason: r}\n", "w.yaml:2:10: waivers[0].code: a list: allowed is a text"},
		{"a key twice", "waivers:\n- {code: NSG201, code: NSG202, resource: x, reason: r}\n", `w.yaml:2:18: waivers[0]: key "code" is given twice`},
		{"too many", "waivers:\n" + strings.Repeat(good, maxWaivers+1), "w.yaml:10002:3: waivers: 10001 of them; allowed are 10000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := read(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	if err := read("waivers:\n" + good); err != nil {
		t.Error(err)
	}
}

func TestTheSchemaHasTheKeysOfAWaiver(t *testing.T) {
	for _, problem := range schematest.Compare("../../deploy/schema/nsgctl-waivers.schema.json", reflect.TypeFor[waiverFile]()) {
		t.Error(problem)
	}
}
