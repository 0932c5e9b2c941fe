package e2e

import (
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// TestIntraSubnetTraffic is the section "Intra-subnet traffic" of Azure's
// document, sentence by sentence.
func TestIntraSubnetTraffic(t *testing.T) {
	const within = "10.0.1.0/24"
	allow := rules(
		rule{name: "AllowSubnetInBound", priority: 4000, direction: "Inbound", access: "Allow", source: within, destination: within},
		rule{name: "AllowSubnetOutBound", priority: 4000, direction: "Outbound", access: "Allow", source: within, destination: within},
	)
	cut := labPolicy().with(nsg1, denyAllIn, denyAllOut)

	t.Run("rules of a group that is associated with a subnet can affect connectivity between its VMs", func(t *testing.T) {
		start(t, labPolicy())
		before := scrape(t)
		mustPing(t, vm1, vm2)
		since(t, before, func(c counts) bool {
			return c.rule(decided{nsg1, "Outbound", "AllowVnetOutBound", "Allow"}).hits == 1 &&
				c.rule(decided{nsg1, "Inbound", "AllowVnetInBound", "Allow"}).hits == 1
		})
	})
	t.Run("if a rule that denies all inbound and outbound traffic is added to NSG1 then VM1 and VM2 can no longer communicate", func(t *testing.T) {
		d := start(t, labPolicy())
		serveBoth(t)
		mustCommunicate(t)
		d.setPolicy(cut)
		nsgctl(t, "reload")
		before := scrape(t)
		for _, pair := range [][2]lab.Host{{vm1, vm2}, {vm2, vm1}} {
			mustNotConnect(t, pair[0], pair[1], 8080)
			mustNotPing(t, pair[0], pair[1])
			receiver := bindUDP(t, pair[1], 0)
			send(t, bindUDP(t, pair[0], 0), address(receiver), 1, 100)
			receiveNothing(t, receiver)
		}
		since(t, before, func(c counts) bool {
			return c.rule(decided{nsg1, "Outbound", denyAllOut.name, "Deny"}).hits >= 6
		})
	})
	t.Run("a rule that denies all inbound traffic alone is enough", func(t *testing.T) {
		start(t, labPolicy().with(nsg1, denyAllIn))
		serveBoth(t)
		before := scrape(t)
		mustNotConnect(t, vm1, vm2, 8080)
		mustNotConnect(t, vm2, vm1, 8080)
		since(t, before, func(c counts) bool {
			return c.rule(decided{nsg1, "Inbound", denyAllIn.name, "Deny"}).hits >= 2
		})
	})
	t.Run("another rule would have to be added to allow it", func(t *testing.T) {
		start(t, cut.with(nsg1, allow...))
		serveBoth(t)
		mustCommunicate(t)
	})
}

func serveBoth(t *testing.T) {
	t.Helper()
	serveTCP(t, vm1, 8080)
	serveTCP(t, vm2, 8080)
}

func mustCommunicate(t *testing.T) {
	t.Helper()
	for _, pair := range [][2]lab.Host{{vm1, vm2}, {vm2, vm1}} {
		mustConnect(t, pair[0], pair[1], 8080)
		mustPing(t, pair[0], pair[1])
		receiver := bindUDP(t, pair[1], 0)
		send(t, bindUDP(t, pair[0], 0), address(receiver), 1, 100)
		receive(t, receiver, 1)
	}
}
