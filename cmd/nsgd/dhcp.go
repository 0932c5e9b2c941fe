package main

import (
	"github.com/nsgd/nsgd/dataplane/dhcp"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// responders answer DHCP on the interfaces of the attachments that ask for it, from the policy in force.
func (d *daemon) responders() (list []*dhcp.Responder) {
	for i := range d.config.Attachments {
		a := &d.config.Attachments[i]
		if !a.DHCP {
			continue
		}
		var set *policy.Set
		var nic *policy.NetworkInterface
		list = append(list, dhcp.New(dhcp.Options{
			Namespace: a.Netns, Interface: a.Interface, Gateway: a.DefaultGateway, Log: d.log,
			NetworkInterface: func() *policy.NetworkInterface {
				if now := d.engine.Snapshot().Policy; now != set { // finding it looks at every NIC
					set = now
					nic, _ = set.NetworkInterface(a.NetworkInterface)
				}
				return nic
			},
		}))
	}
	return list
}
