package arm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// greatTemplate is a template of three megabytes: groups of a thousand rules with expressions, and comments.
func greatTemplate() string {
	var b strings.Builder
	b.WriteString(`{"parameters": {"prefix": {"type": "string", "defaultValue": "lab"}, "source": {"type": "string", "defaultValue": "10.0.0.0/8"}}, "resources": [`)
	for g := 0; b.Len() < 3<<20; g++ {
		fmt.Fprintf(&b, `{"type": "Microsoft.Network/networkSecurityGroups", "name": "[concat(parameters('prefix'), '-%d')]", // a group
			"location": "[resourceGroup().location]", "properties": {"securityRules": [`, g)
		for i := range 1000 {
			fmt.Fprintf(&b, `{"name": "r%d", "properties": {"priority": %d, "direction": "Inbound", "access": "Allow", "protocol": "Tcp", "sourceAddressPrefix": "[parameters('source')]",
				"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": "[string(add(%d, 1024))]"}},`, i, 100+i, i)
		}
		b.WriteString("]}},")
	}
	b.WriteString("]}")
	return b.String()
}

func BenchmarkGreatTemplate(b *testing.B) {
	text := greatTemplate()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if d := Parse("main.json", []byte(text)); len(d.Faults)+len(d.Unresolved) > 0 {
			b.Fatal(d.Faults, d.Unresolved)
		}
	}
}

func BenchmarkSharedTemplates(b *testing.B) {
	files, err := filepath.Glob(filepath.Join(sharedTemplates, "*", "azuredeploy.json"))
	if err != nil || len(files) == 0 {
		b.Skipf("the shared templates are not here: %s", sharedTemplates)
	}
	for _, file := range files {
		b.Run(filepath.Base(filepath.Dir(file)), func(b *testing.B) {
			for b.Loop() {
				Load(file)
			}
		})
	}
}
