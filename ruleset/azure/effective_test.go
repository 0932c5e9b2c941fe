package azure

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func TestEffectiveRulesInAzuresForm(t *testing.T) {
	d := arm.Load("testdata/effective.json")
	if len(d.Faults) > 0 {
		t.Fatal(d.Faults)
	}
	nsg := d.Set.NetworkSecurityGroups[0]
	expand := func(tag string) []netip.Prefix {
		switch tag {
		case ruleset.TagVirtualNetwork:
			return ruleset.VirtualNetworkPrefixes([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")})
		case ruleset.TagInternet: // the whole expansion would fill the golden file
			return ruleset.InternetPrefixes(nil)[:2]
		case ruleset.TagAzureLoadBalancer:
			return ruleset.AzureLoadBalancerPrefixes()
		}
		return nil
	}
	result := EffectiveNetworkSecurityGroupListResult{Value: []EffectiveNetworkSecurityGroup{
		Effective(nsg, EffectiveAssociation{Subnet: &SubResource{ID: "/vnet1/subnets/a"}}, expand),
		Effective(&ruleset.NSG{ID: "/nsg/empty"}, EffectiveAssociation{NetworkInterface: &SubResource{ID: "/nic1"}}, expand),
	}}
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/effective.golden"
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("%s differs; -update rewrites it. Got:\n%s", golden, text)
	}
}
