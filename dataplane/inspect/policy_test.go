package inspect_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// Unknown tags came after the faults of all documents.
func TestFaultsOfUnknownTagsComeInTheOrderOfTheDocuments(t *testing.T) {
	const before = `{"type": "Microsoft.Network/networkSecurityGroups", "name": "g-`
	const middle = `", "properties": {"securityRules": [{"name": "r", "properties": {"priority": 100, "direction": "Inbound", "access": "Allow",
		"protocol": "*", "sourcePortRange": "*", "destinationPortRange": "*", "destinationAddressPrefix": "*", "sourceAddressPrefix": "`
	dir := t.TempDir()
	for name, source := range map[string]string{"a": "Sql", "b": "10.0.0.1/8", "c": "Storage", "d": "10.0.0.2/8"} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(before+name+middle+source+`"}}]}}`), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := inspect.NewPolicyFiles("", dir).Load()
	var policy *inspect.PolicyError
	if !errors.As(err, &policy) {
		t.Fatal(err)
	}
	var values []string
	for _, f := range policy.Faults {
		values = append(values, f.Value)
	}
	if want := []string{"Sql", "10.0.0.1/8", "Storage", "10.0.0.2/8"}; !slices.Equal(values, want) {
		t.Errorf("got %q, want %q", values, want)
	}
}
