package e2e

import (
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// The rules that decide about port 80 to the internet.
var (
	allowedOut = func(group string) decided { return decided{group, "Outbound", "AllowInternetOutBound", "Allow"} }
	deniedOut  = func(group string) decided { return decided{group, "Outbound", denyHTTPOut.name, "Deny"} }
)

// TestOutboundTraffic is the section "Outbound traffic" of Azure's document,
// sentence by sentence.
func TestOutboundTraffic(t *testing.T) {
	t.Run("rules of the network interface's group are processed first and then those of the subnet's", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			v := verify(t, "vm1-nic", "Outbound", "TCP", endpoint(f.vm1, 50000), endpoint(f.internet, 80))
			if len(v.Stages) != 2 || v.Stages[0].Association != "networkInterface" || v.Stages[0].NetworkSecurityGroup != nsg2 ||
				v.Stages[1].Association != "subnet" || v.Stages[1].NetworkSecurityGroup != nsg1 {
				t.Errorf("stages %+v, want networkInterface %s, then subnet %s", v.Stages, nsg2, nsg1)
			}
		})
	})
	t.Run("VM1", outboundVM1)
	t.Run("VM2", func(t *testing.T) {
		t.Run("all traffic passes the network interface without a group and the rules in NSG1 are processed", func(t *testing.T) {
			onlyThisGroup(t, func(f family) lab.Host { return f.vm2 }, nsg1, nsg2)
		})
	})
	t.Run("VM3", func(t *testing.T) {
		t.Run("if NSG2 denies port 80 it is denied and if NSG2 allows it then it is allowed since Subnet2 has no group", func(t *testing.T) {
			onlyThisGroup(t, func(f family) lab.Host { return f.vm3 }, nsg2, nsg1)
		})
	})
	t.Run("VM4", func(t *testing.T) {
		t.Run("all traffic is allowed since neither its network interface nor Subnet3 has a group", func(t *testing.T) {
			deny := rules(denyHTTPOut, denyAllOut)
			start(t, groups(deny, deny))
			eachFamily(t, func(t *testing.T, f family) {
				serveTCP(t, f.internet, 80)
				before := scrape(t)
				mustConnect(t, f.vm4, f.internet, 80)
				mustPing(t, f.vm4, f.internet)
				if c := (counts{t, before, scrape(t)}); c.hits(nsg1)+c.hits(nsg2) != 0 {
					t.Errorf("NSG1 decided %v times, NSG2 %v times about traffic of VM4", c.hits(nsg1), c.hits(nsg2))
				}
			})
		})
	})
}

func outboundVM1(t *testing.T) {
	t.Run("the rules in NSG2 are processed", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			before := scrape(t)
			mustConnect(t, f.vm1, f.internet, 80)
			since(t, before, func(c counts) bool { return c.rule(allowedOut(nsg2)).hits == 1 })
		})
	})
	t.Run("unless a rule denies port 80 out AllowInternetOutbound of both NSG1 and NSG2 allows it", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			before := scrape(t)
			mustConnect(t, f.vm1, f.internet, 80)
			since(t, before, func(c counts) bool {
				return c.rule(allowedOut(nsg2)).hits == 1 && c.rule(allowedOut(nsg1)).hits == 1
			})
		})
	})
	t.Run("if NSG2 has a rule that denies port 80 the traffic is denied and never evaluated by NSG1", func(t *testing.T) {
		start(t, labPolicy().with(nsg2, denyHTTPOut))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			before := scrape(t)
			mustNotConnect(t, f.vm1, f.internet, 80)
			deniedBy(t, before, deniedOut(nsg2), nsg1)
		})
	})
	t.Run("to deny port 80 either of the groups or both must have a rule that denies it", func(t *testing.T) {
		tests := []struct {
			name string
			p    groupRules
			by   string
		}{
			{"only NSG1 has", labPolicy().with(nsg1, denyHTTPOut), nsg1},
			{"only NSG2 has", labPolicy().with(nsg2, denyHTTPOut), nsg2},
			{"both have", labPolicy().with(nsg1, denyHTTPOut).with(nsg2, denyHTTPOut), nsg2},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				start(t, tt.p)
				eachFamily(t, func(t *testing.T, f family) {
					serveTCP(t, f.internet, 80)
					before := scrape(t)
					mustNotConnect(t, f.vm1, f.internet, 80)
					deniedBy(t, before, deniedOut(tt.by), "")
				})
			})
		}
	})
}

// onlyThisGroup checks that one group alone decides about a host's traffic to
// the internet, whatever the other one says.
func onlyThisGroup(t *testing.T, host func(family) lab.Host, group, other string) {
	t.Run("allowed by "+group+", while "+other+" would deny", func(t *testing.T) {
		start(t, labPolicy().with(other, denyHTTPOut))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			before := scrape(t)
			mustConnect(t, host(f), f.internet, 80)
			c := since(t, before, func(c counts) bool { return c.rule(allowedOut(group)).hits == 1 })
			if c.hits(other) != 0 {
				t.Errorf("%s decided %v times about traffic of %s", other, c.hits(other), host(f).Name)
			}
		})
	})
	t.Run("denied by "+group+", while "+other+" would allow", func(t *testing.T) {
		start(t, labPolicy().with(group, denyHTTPOut))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.internet, 80)
			before := scrape(t)
			mustNotConnect(t, host(f), f.internet, 80)
			deniedBy(t, before, deniedOut(group), other)
		})
	})
}
