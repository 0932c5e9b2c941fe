package arm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/nsgd/nsgd/ruleset"
)

// outcome lists what was read and what was not.
func outcome(d *Documents, dir string) string {
	var b strings.Builder
	for _, g := range d.Set.NetworkSecurityGroups {
		fmt.Fprintf(&b, "group %s\n", g.Name)
		for i := range g.Rules {
			r := &g.Rules[i]
			source := "*"
			if !r.Source.Any {
				source = fmt.Sprint(r.Source.Tag, r.Source.Prefixes)
			}
			fmt.Fprintf(&b, "  rule %d %s %v %v %s from %s to %v\n", r.Priority, r.Name, r.Direction, r.Access, r.Protocol, source, r.DestinationPorts)
		}
	}
	for _, v := range d.Set.VirtualNetworks {
		for _, s := range v.Subnets {
			fmt.Fprintf(&b, "subnet %s/%s", v.Name, s.Name)
			if s.NetworkSecurityGroup != nil {
				fmt.Fprintf(&b, " group %s", s.NetworkSecurityGroup.Name)
			}
			b.WriteByte('\n')
		}
	}
	for _, n := range d.Set.NetworkInterfaces {
		fmt.Fprintf(&b, "interface %s\n", n.Name)
	}
	for _, list := range []struct {
		name   string
		faults ruleset.Faults
	}{{"open", d.Unresolved}, {"fault", d.Faults}, {"warning", d.Warnings}} {
		for _, f := range list.faults {
			fmt.Fprintf(&b, "%s %s\n", list.name, strings.ReplaceAll(f.Error(), dir+"/", ""))
		}
	}
	return b.String()
}

// Each archive of testdata/templates is a policy that was once read wrong, or could be: files, and what is read in the
// file want.
func TestTemplatesOfCases(t *testing.T) {
	files, err := filepath.Glob("testdata/templates/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			contents, want := map[string]string{}, ""
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				contents[f.Name] = string(f.Data)
			}
			dir := policyOf(t, contents)
			got := outcome(Load(filepath.Join(dir, "main.json")), dir)
			if *update {
				archive.Files = append(slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" }), txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}
