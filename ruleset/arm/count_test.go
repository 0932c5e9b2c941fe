package arm

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sharedTemplates are templates of public repositories, which are not part of this one.
const sharedTemplates = "../../../shared/data/templates"

// counted are the network security groups and rules that a plain walk of a template's JSON finds.
type counted struct {
	groups, rules int
	// maybe are groups whose number or rules a walk can't tell: they have a condition, a loop or an expression.
	maybe int
}

// count walks through lists of resources, their children and nested templates.
func (c *counted) count(resources any, depends bool) {
	list, _ := resources.([]any)
	if symbolic, ok := resources.(map[string]any); ok {
		for _, r := range symbolic {
			list = append(list, r)
		}
	}
	for _, e := range list {
		r, _ := e.(map[string]any)
		properties, _ := r["properties"].(map[string]any)
		_, conditional := r["condition"]
		_, looped := r["copy"]
		depends := depends || conditional || looped
		kind, _ := r["type"].(string)
		switch {
		case strings.EqualFold(kind, "Microsoft.Network/networkSecurityGroups"):
			rules, literal := properties["securityRules"].([]any)
			if depends || !literal && properties["securityRules"] != nil || properties["copy"] != nil {
				c.maybe++
				break
			}
			c.groups++
			c.rules += len(rules)
		case strings.HasSuffix(strings.ToLower(kind), "securityrules"):
			c.maybe++
		}
		c.count(r["resources"], depends)
		if template, ok := properties["template"].(map[string]any); ok {
			c.count(template["resources"], depends)
		}
	}
}

// No group and no rule of a template is lost without a word: what a walk of its JSON finds is read, or listed as open.
func TestNothingIsLostOfSharedTemplates(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(sharedTemplates, "*", "azuredeploy.json"))
	if err != nil || len(files) == 0 {
		t.Skipf("the shared templates are not here: %s", sharedTemplates)
	}
	var all counted
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var document map[string]any
		if err := json.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &document); err != nil {
			t.Errorf("%s: %v", file, err) // none of them has comments
			continue
		}
		var want counted
		want.count(document["resources"], false)
		d := Load(file)
		groups, rules, open := len(d.Set.NetworkSecurityGroups), 0, map[string]bool{}
		for _, g := range d.Set.NetworkSecurityGroups {
			rules += len(g.Rules)
		}
		told := false // a link that is not here, or a fault of a group
		for _, f := range d.Faults {
			told = told || strings.HasPrefix(f.Resource, "networkSecurityGroups/")
		}
		for _, f := range d.Unresolved {
			told = told || f.Field == "templateLink"
			switch name, group := strings.CutPrefix(f.Resource, "networkSecurityGroups/"); {
			case group && f.Rule != "":
				open["rule "+name+"/"+f.Rule] = true
			case group && !strings.Contains(name, "/"):
				open["group "+name] = true
			}
		}
		openGroups, openRules := 0, 0
		for name := range open {
			if strings.HasPrefix(name, "group ") {
				openGroups++
			} else {
				openRules++
			}
		}
		all.groups += want.groups
		all.rules += want.rules
		all.maybe += want.maybe
		name := filepath.Base(filepath.Dir(file))
		t.Logf("%s: %d groups with %d rules, and %d more perhaps; read %d groups with %d rules; open are %d groups and %d rules", name,
			want.groups, want.rules, want.maybe, groups, rules, openGroups, openRules)
		if got := groups + openGroups; !told && (got < want.groups || want.maybe == 0 && got != want.groups) {
			t.Errorf("%s: %d groups are read or open, the file has %d", name, got, want.groups)
		}
		if got := rules + openRules; openGroups == 0 && !told && (got < want.rules || want.maybe == 0 && got != want.rules) {
			t.Errorf("%s: %d rules are read or open, the file has %d", name, got, want.rules)
		}
	}
	t.Logf("%d templates have %d groups with %d rules, and %d more groups perhaps", len(files), all.groups, all.rules, all.maybe)
}
