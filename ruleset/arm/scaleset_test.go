package arm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/ruleset/policy"
)

const (
	scaleSetNetwork = `{"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
  "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}]}}`
	scaleSetBalancer = `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
  "frontendIPConfigurations": [{"name": "f", "properties": {"subnet": {"id": "v/s"}, "privateIPAddress": "10.0.0.200"}}], "backendAddressPools": [{"name": "p"}],
  "inboundNatPools": [{"name": "nat", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "protocol": "Tcp", "frontendPortRangeStart": 50000, "frontendPortRangeEnd": 50009, "backendPort": 22}}]RULES}}`
	scaleSet = `{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "web", "sku": {"capacity": 2}, "properties": {"virtualMachineProfile": {"networkProfile": {
  "networkInterfaceConfigurations": [{"name": "nic", "properties": {"enableIPForwarding": true, "ipConfigurations": [{"name": "c", "properties": {"subnet": {"id": "v/s"},
   "loadBalancerBackendAddressPools": [{"id": "lb/p"}], "loadBalancerInboundNatPools": [{"id": "lb/nat"}]}}]}}]}}}}`
	instanceID = "/subscriptions/S/resourceGroups/R/providers/Microsoft.Compute/virtualMachineScaleSets/web/virtualMachines/7"
)

// fleet shows the network interfaces and what load balancers lead to them.
func fleet(s *policy.Set) string {
	var b strings.Builder
	for _, n := range s.NetworkInterfaces {
		fmt.Fprintf(&b, "%s %s\n", n.Name, n.IPConfigurations[0].Address)
	}
	for _, lb := range s.LoadBalancers {
		for _, p := range lb.Pools {
			fmt.Fprint(&b, p.Name)
			for _, m := range p.Backends {
				fmt.Fprint(&b, " ", m.Address)
			}
			fmt.Fprintln(&b)
		}
		for _, r := range lb.NATRules {
			fmt.Fprintf(&b, "%s %d-%d:%d", r.Name, r.First, r.Last, r.BackendPort)
			if r.Backend != nil {
				fmt.Fprint(&b, " ", r.Backend.Address)
			} else {
				for _, m := range r.Pool.Backends {
					fmt.Fprint(&b, " ", m.Address)
				}
			}
			fmt.Fprintln(&b)
		}
	}
	return b.String()
}

func TestScaleSets(t *testing.T) {
	const made = "web/0/nic 10.0.0.4\nweb/1/nic 10.0.0.5\np 10.0.0.4 10.0.0.5\nnat 50000-50009:22 10.0.0.4 10.0.0.5\n"
	exported := `{"name": "nic", "id": "` + instanceID + `/networkInterfaces/nic", "ipConfigurations": [{"name": "c", "id": "` + instanceID + `/networkInterfaces/nic/ipConfigurations/c",
   "privateIPAddress": "10.0.0.9", "subnet": {"id": "v/s"}, "loadBalancerBackendAddressPools": [{"id": "lb/p"}], "loadBalancerInboundNatRules": [{"id": "lb/inboundNatRules/nat.7"}]}],
   "virtualMachine": {"id": "` + instanceID + `"}}`
	rules := `, "inboundNatRules": [{"name": "nat.7", "properties": {"frontendIPConfiguration": {"id": "lb/f"}, "protocol": "Tcp", "frontendPort": 50003, "backendPort": 22}}]`
	flexible := `{"type": "Microsoft.Network/networkInterfaces", "name": "nic-1", "properties": {"virtualMachine": {"id": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Compute/virtualMachines/web_0a1b2c3d"},
   "ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.9", "subnet": {"id": "v/s"}, "loadBalancerBackendAddressPools": [{"id": "lb/p"}]}}]}}`
	for _, tt := range []struct{ name, set, more, rules, runtime, want string }{
		{"each instance has its interfaces", scaleSet, "", "", "", made},
		{"in az's form", flattened(scaleSet), "", "", "", made},
		{"a set that is given twice is one", scaleSet + "," + scaleSet, "", "", "", made},
		{"interfaces of the documents hold, and rules that Azure has made", scaleSet, exported, rules, "", "web/7/nic 10.0.0.9\np 10.0.0.9\nnat.7 50003-50003:22 10.0.0.9\n"},
		{"interfaces of a flexible set's machines hold", scaleSet, flexible, "", "", "nic-1 10.0.0.9\np 10.0.0.9\nnat 50000-50009:22\n"},
		{"Azure's addresses go before", scaleSet, "", "", `{"web/1/nic": {"properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.77"}}]}}}`,
			"web/0/nic 10.0.0.4\nweb/1/nic 10.0.0.77\np 10.0.0.4 10.0.0.77\nnat 50000-50009:22 10.0.0.4 10.0.0.77\n"},
		{"by id too", strings.Replace(scaleSet, `"name": "web"`, `"name": "web", "id": "`+strings.TrimSuffix(instanceID, "/virtualMachines/7")+`"`, 1), "", "",
			`{"` + strings.Replace(instanceID, "/7", "/1", 1) + `/networkInterfaces/nic": {"ipConfigurations": [{"name": "c", "privateIPAddress": "10.0.0.77"}]}}`,
			"web/0/nic 10.0.0.4\nweb/1/nic 10.0.0.77\np 10.0.0.4 10.0.0.77\nnat 50000-50009:22 10.0.0.4 10.0.0.77\n"},
		{"a set that exists elsewhere", "", "", "", `{"web": ` + scaleSet + `}`, made},
		{"without a network profile it has none", `{"type": "Microsoft.Compute/virtualMachineScaleSets", "name": "web", "properties": {"orchestrationMode": "Flexible"}}`, "", "", "", "p\nnat 50000-50009:22\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts := []string{scaleSetNetwork, strings.Replace(scaleSetBalancer, "RULES", tt.rules, 1), tt.set, tt.more}
			document := "[" + strings.Trim(strings.ReplaceAll(strings.Join(parts, ","), ",,", ","), ",") + "]"
			files := map[string]string{"main.json": document}
			if tt.runtime != "" {
				files["runtime.txt"] = tt.runtime
			}
			dir := policyOf(t, files)
			r := NewReader("", dir+"/main.json")
			if tt.runtime != "" {
				r.SetDeployment(Deployment{Runtime: dir + "/runtime.txt"})
			}
			d := r.Read()
			if got := fleet(d.Set); got != tt.want || len(d.Faults) > 0 || len(d.Unresolved) > 0 {
				t.Errorf("got\n%swant\n%s%v\n%v", got, tt.want, d.Faults, d.Unresolved)
			}
		})
	}
}

// What is wrong with a scale set's configuration is wrong with each instance. It is told once.
func TestScaleSetsThatAreWrong(t *testing.T) {
	for _, tt := range []struct{ name, from, to, want string }{
		{"more instances than Azure has", `"capacity": 2`, `"capacity": 1001`, `capacity "1001": VirtualMachineScaleSetInvalidCapacity`},
		{"no capacity", `"sku": {"capacity": 2}, `, ``, `VirtualMachineScaleSetWithoutCapacity`},
		{"a capacity that is open", `"capacity": 2`, `"capacity": "[parameters('n')]"`, `capacity "[parameters('n')]": TemplateExpression`},
		{"a configuration that is open", `[{"name": "c", "properties": {"subnet": {"id": "v/s"}`, `[{"name": "c", "properties": {"subnet": {"id": "[parameters('s')]"}`, `web/virtualMachines/0/networkInterfaces/nic/ipConfigurations/c: subnet`},
		{"a subnet that exists elsewhere", `"v/s"`, `"/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/w/subnets/s"`, `web/virtualMachines/0/networkInterfaces/nic/ipConfigurations/c: subnet`},
		{"a broken reference", `"v/s"`, `"v/t"`, `web/virtualMachines/0/networkInterfaces/nic/ipConfigurations/c: subnet`},
		{"a misspelled property", `"subnet"`, `"applicationSecurityGroup": [], "subnet"`, `web/virtualMachines/0/networkInterfaces/nic/ipConfigurations/c: applicationSecurityGroup`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte("["+scaleSetNetwork+","+strings.Replace(scaleSetBalancer, "RULES", "", 1)+","+strings.Replace(scaleSet, tt.from, tt.to, 1)+"]"))
			told := ""
			for _, f := range append(append(d.Faults, d.Unresolved...), d.Warnings...) {
				if f.Code != CodeAddressNotAssigned {
					told += f.Error() + "\n"
				}
			}
			if !strings.Contains(told, tt.want) || strings.Count(told, "\n") != 1 {
				t.Errorf("told\n%swant one about %q", told, tt.want)
			}
		})
	}
}

func TestScaleSetsOfTerraform(t *testing.T) {
	const network, compute = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/", "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/"
	for _, kind := range []string{"linux", "windows", "orchestrated"} {
		d := Parse("state.json", []byte(`{"format_version": "1.0", "terraform_version": "1.9.0", "values": {"root_module": {"resources": [
{"address": "azurerm_virtual_network.v", "mode": "managed", "type": "azurerm_virtual_network", "name": "v", "values": {"id": "`+network+`virtualNetworks/v", "name": "v", "address_space": ["10.0.0.0/16"],
  "subnet": [{"id": "`+network+`virtualNetworks/v/subnets/s", "name": "s", "address_prefixes": ["10.0.0.0/24"]}]}},
{"address": "azurerm_lb.lb", "mode": "managed", "type": "azurerm_lb", "name": "lb", "values": {"id": "`+network+`loadBalancers/lb", "name": "lb", "sku": "Standard", "frontend_ip_configuration": [
  {"name": "f", "subnet_id": "`+network+`virtualNetworks/v/subnets/s", "private_ip_address": "10.0.0.200"}]}},
{"address": "azurerm_lb_backend_address_pool.p", "mode": "managed", "type": "azurerm_lb_backend_address_pool", "name": "p", "values": {"id": "`+network+`loadBalancers/lb/backendAddressPools/p", "name": "p",
  "loadbalancer_id": "`+network+`loadBalancers/lb"}},
{"address": "azurerm_lb_nat_pool.nat", "mode": "managed", "type": "azurerm_lb_nat_pool", "name": "nat", "values": {"id": "`+network+`loadBalancers/lb/inboundNatPools/nat", "name": "nat",
  "loadbalancer_id": "`+network+`loadBalancers/lb", "frontend_ip_configuration_name": "f", "protocol": "Tcp", "frontend_port_start": 50000, "frontend_port_end": 50009, "backend_port": 22}},
{"address": "azurerm_`+kind+`_virtual_machine_scale_set.web", "mode": "managed", "type": "azurerm_`+kind+`_virtual_machine_scale_set", "name": "web", "values": {"id": "`+compute+`virtualMachineScaleSets/web", "name": "web", "instances": 2,
  "network_interface": [{"name": "nic", "primary": true, "ip_forwarding_enabled": true, "network_security_group_id": null, "ip_configuration": [{"name": "c", "primary": true, "subnet_id": "`+network+`virtualNetworks/v/subnets/s", "version": "IPv4",
    "application_security_group_ids": [], "load_balancer_backend_address_pool_ids": ["`+network+`loadBalancers/lb/backendAddressPools/p"], "load_balancer_inbound_nat_rules_ids": ["`+network+`loadBalancers/lb/inboundNatPools/nat"],
    "public_ip_address": [{"name": "own", "idle_timeout_in_minutes": 5, "version": "IPv4"}]}]}]}}
]}}}`))
		const want = "web/0/nic 10.0.0.4\nweb/1/nic 10.0.0.5\np 10.0.0.4 10.0.0.5\nnat 50000-50009:22 10.0.0.4 10.0.0.5\n"
		if got := fleet(d.Set); got != want || len(d.Faults) > 0 || len(d.Unresolved) > 0 {
			t.Fatalf("%s: got\n%swant\n%s%v\n%v", kind, got, want, d.Faults, d.Unresolved)
		}
		n := d.Set.NetworkInterfaces[1]
		if p := n.IPConfigurations[0].PublicIPAddress; !n.EnableIPForwarding || p == nil || p.IdleTimeout.Minutes() != 5 || n.VirtualMachineID != compute+"virtualMachineScaleSets/web/virtualMachines/1" {
			t.Errorf("%s: %+v", kind, n)
		}
	}
}

func TestAFullSubnetIsToldOnce(t *testing.T) {
	d := Parse("test.json", []byte("["+strings.Replace(scaleSetNetwork, "10.0.0.0/24", "10.0.0.0/29", 1)+","+
		strings.Replace(scaleSet, `"capacity": 2`, `"capacity": 20`, 1)+"]"))
	if len(d.Faults) != 1 || d.Faults[0].Code != CodeSubnetFull {
		t.Errorf("faults %v", d.Faults)
	}
}
