package conformance

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

type printedFault struct {
	Code, File, Resource, Rule, Field, Value, Message string
}

// Every fault that a case names is printed, and no other.
func TestNsgctlValidateFindsEveryFault(t *testing.T) {
	eachCase(t, func(c *Case) bool { return len(c.Faults) > 0 }, func(t *testing.T, c *Case) {
		policy, tags := onDisk(t, &c.Policy)
		args := []string{"validate", "-o", "json", policy}
		if tags != "" {
			args = append(args, "--service-tags", tags)
		}
		stdout, stderr, code := run(t, nil, args...)
		var printed struct {
			Valid  bool
			Faults []printedFault
		}
		if err := json.Unmarshal(stdout, &printed); err != nil {
			t.Fatalf("%v: %s%s", err, stdout, stderr)
		}
		if code != 1 || printed.Valid {
			t.Errorf("exit code %d, valid %t: want 1 and false", code, printed.Valid)
		}
		for i, got := range printed.Faults {
			if i >= len(c.Faults) {
				t.Errorf("a fault that was not to be: %+v", got)
				continue
			}
			if file := filepath.Base(got.File); file != "policy.json" && file != "ServiceTags.json" {
				t.Errorf("fault %d names file %q", i, got.File)
			}
			c.Faults[i].compare(t, &got)
		}
		if len(printed.Faults) < len(c.Faults) {
			t.Errorf("%d faults, want %d", len(printed.Faults), len(c.Faults))
		}
	})
}

func (f *Fault) compare(t *testing.T, got *printedFault) {
	t.Helper()
	for _, field := range []struct{ name, got, want string }{
		{"code", got.Code, f.Code}, {"resource", got.Resource, f.Resource}, {"rule", got.Rule, f.Rule},
		{"field", got.Field, f.Field}, {"value", got.Value, f.Value},
	} {
		if field.want != "" && field.got != field.want {
			t.Errorf("%s %q, want %q: %+v", field.name, field.got, field.want, got)
		}
	}
	if !strings.Contains(got.Message, f.Message) {
		t.Errorf("message %q, want %q in it", got.Message, f.Message)
	}
}
