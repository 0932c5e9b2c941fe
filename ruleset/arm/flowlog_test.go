package arm

import (
	"strings"
	"testing"
)

func TestFlowLogs(t *testing.T) {
	const (
		base = "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/"
		text = `[{"type": "Microsoft.Network/virtualNetworks", "name": "v", "id": "` + base + `virtualNetworks/v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
  "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24"}}]}},
 {"type": "Microsoft.Network/networkSecurityGroups", "name": "g", "id": "` + base + `networkSecurityGroups/g", "properties": {}},
 {"type": "Microsoft.Network/networkInterfaces", "name": "n", "id": "` + base + `networkInterfaces/n", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}}}]}},
 LOG]`
		log   = `{"type": "Microsoft.Network/networkWatchers/flowLogs", "name": "NetworkWatcher_westeurope/log", "properties": {"targetResourceId": "TARGET", "storageId": "x", "enabled": true, "format": {"type": "JSON", "version": 2}}}`
		inner = `{"type": "Microsoft.Network/networkWatchers", "name": "w", "properties": {}, "resources": [{"type": "flowLogs", "name": "log", "properties": {"targetResourceId": "TARGET", "storageId": "x"}}]}`
		az    = `{"id": "/subscriptions/S/resourceGroups/NetworkWatcherRG/providers/Microsoft.Network/networkWatchers/w/flowLogs/log", "name": "log", "targetResourceId": "TARGET", "enabled": true, "format": {"type": "JSON", "version": 2}}`
	)
	for _, tt := range []struct{ name, log, target, want string }{
		{"a virtual network's", log, base + "virtualNetworks/v", "network"},
		{"a subnet's", log, base + "virtualNetworks/v/subnets/s", "subnet"},
		{"a network interface's", log, base + "networkInterfaces/n", "interface"},
		{"a network security group's", log, base + "networkSecurityGroups/g", "group"},
		{"inside its network watcher", inner, base + "virtualNetworks/v", "network"},
		{"as az writes it", az, base + "virtualNetworks/v", "network"},
		{"not enabled", strings.Replace(log, `"enabled": true`, `"enabled": false`, 1), base + "virtualNetworks/v", ""},
		{"of a resource elsewhere", log, base + "virtualNetworks/w", "FlowLogNotRead"},
		{"of what an expression names", log, "[parameters('x')]", "FlowLogNotRead"},
		{"of another resource", log, base + "loadBalancers/lb", "FlowLogInvalid"},
		{"of nothing", strings.Replace(log, `"targetResourceId": "TARGET", `, "", 1), "", "FlowLogInvalid"},
		{"of another version", strings.Replace(log, `"version": 2`, `"version": 3`, 1), base + "virtualNetworks/v", "FlowLogInvalid"},
		{"a misspelled field", strings.Replace(log, `"enabled"`, `"enabledd"`, 1), base + "virtualNetworks/v", "UnknownProperty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(strings.ReplaceAll(strings.Replace(text, "LOG", tt.log, 1), "TARGET", tt.target)))
			got := ""
			for _, f := range append(append(d.Faults, d.Unresolved...), d.Warnings...) {
				if got = f.Code; !strings.HasSuffix(f.Resource, "/flowLogs/log") {
					t.Error(f)
				}
			}
			for _, l := range d.Set.FlowLogs {
				switch {
				case got != "":
				case l.VirtualNetwork != nil:
					got = "network"
				case l.Subnet != nil:
					got = "subnet"
				case l.NetworkInterface != nil:
					got = "interface"
				case l.NetworkSecurityGroup != nil:
					got = "group"
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q: %v %v", got, tt.want, d.Faults, d.Warnings)
			}
		})
	}
}
