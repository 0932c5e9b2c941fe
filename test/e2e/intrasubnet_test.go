package e2e

import (
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// TestIntraSubnetTraffic is the section "Intra-subnet traffic" of Azure's
// document, sentence by sentence.
func TestIntraSubnetTraffic(t *testing.T) {
	var allow []rule
	for i, f := range families { // a rule's addresses are of one family
		allow = append(allow,
			rule{name: "AllowSubnetInBound" + f.String(), priority: 4000 + i, direction: "Inbound", access: "Allow", source: f.subnet1, destination: f.subnet1},
			rule{name: "AllowSubnetOutBound" + f.String(), priority: 4000 + i, direction: "Outbound", access: "Allow", source: f.subnet1, destination: f.subnet1})
	}
	cut := labPolicy().with(nsg1, denyAllIn, denyAllOut)

	t.Run("rules of a group that is associated with a subnet can affect connectivity between its VMs", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			before := scrape(t)
			mustPing(t, f.vm1, f.vm2)
			since(t, before, func(c counts) bool {
				return c.rule(decided{nsg1, "Outbound", "AllowVnetOutBound", "Allow"}).hits == 1 &&
					c.rule(decided{nsg1, "Inbound", "AllowVnetInBound", "Allow"}).hits == 1
			})
		})
	})
	t.Run("if a rule that denies all inbound and outbound traffic is added to NSG1 then VM1 and VM2 can no longer communicate", func(t *testing.T) {
		d := start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			d.reload(t, labPolicy())
			serveBoth(t, f)
			mustCommunicate(t, f)
			d.reload(t, cut)
			before := scrape(t)
			for _, pair := range [][2]lab.Host{{f.vm1, f.vm2}, {f.vm2, f.vm1}} {
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
	})
	t.Run("a rule that denies all inbound traffic alone is enough", func(t *testing.T) {
		start(t, labPolicy().with(nsg1, denyAllIn))
		eachFamily(t, func(t *testing.T, f family) {
			serveBoth(t, f)
			before := scrape(t)
			mustNotConnect(t, f.vm1, f.vm2, 8080)
			mustNotConnect(t, f.vm2, f.vm1, 8080)
			since(t, before, func(c counts) bool {
				return c.rule(decided{nsg1, "Inbound", denyAllIn.name, "Deny"}).hits >= 2
			})
		})
	})
	t.Run("another rule would have to be added to allow it", func(t *testing.T) {
		start(t, cut.with(nsg1, allow...))
		eachFamily(t, func(t *testing.T, f family) {
			serveBoth(t, f)
			mustCommunicate(t, f)
		})
	})
}

func serveBoth(t *testing.T, f family) {
	t.Helper()
	serveTCP(t, f.vm1, 8080)
	serveTCP(t, f.vm2, 8080)
}

func mustCommunicate(t *testing.T, f family) {
	t.Helper()
	for _, pair := range [][2]lab.Host{{f.vm1, f.vm2}, {f.vm2, f.vm1}} {
		mustConnect(t, pair[0], pair[1], 8080)
		mustPing(t, pair[0], pair[1])
		receiver := bindUDP(t, pair[1], 0)
		send(t, bindUDP(t, pair[0], 0), address(receiver), 1, 100)
		receive(t, receiver, 1)
	}
}
