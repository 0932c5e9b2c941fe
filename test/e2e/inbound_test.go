package e2e

import "testing"

// The rules that decide about port 80 from the internet.
var (
	allowedIn = func(group string) decided { return decided{group, "Inbound", allowHTTPIn.name, "Allow"} }
	deniedIn  = func(group string) decided { return decided{group, "Inbound", "DenyAllInBound", "Deny"} }
)

// TestInboundTraffic is the section "Inbound traffic" of Azure's document,
// sentence by sentence.
func TestInboundTraffic(t *testing.T) {
	t.Run("rules of the subnet's group are processed first and then those of the network interface's", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			v := verify(t, "vm1-nic", "Inbound", "TCP", endpoint(f.vm1, 80), endpoint(f.internet, 50000))
			if len(v.Stages) != 2 || v.Stages[0].Association != "subnet" || v.Stages[0].NetworkSecurityGroup != nsg1 ||
				v.Stages[1].Association != "networkInterface" || v.Stages[1].NetworkSecurityGroup != nsg2 {
				t.Errorf("stages %+v, want subnet %s, then networkInterface %s", v.Stages, nsg1, nsg2)
			}
		})
	})
	t.Run("VM1", inboundVM1)
	t.Run("VM2", inboundVM2)
	t.Run("VM3", inboundVM3)
	t.Run("VM4", inboundVM4)
}

func inboundVM1(t *testing.T) {
	t.Run("the rules in NSG1 are processed since it is associated with Subnet1 and VM1 is in Subnet1", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm1, 80)
			before := scrape(t)
			mustConnect(t, f.internet, f.vm1, 80)
			since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg1)).hits == 1 })
		})
	})
	t.Run("unless a rule allows port 80 in it is denied by DenyAllInbound and never evaluated by NSG2", func(t *testing.T) {
		start(t, groups(nil, rules(allowHTTPIn)))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm1, 80)
			before := scrape(t)
			mustNotConnect(t, f.internet, f.vm1, 80)
			deniedBy(t, before, deniedIn(nsg1), nsg2)
		})
	})
	t.Run("if NSG1 has a rule that allows port 80 the traffic is processed by NSG2", func(t *testing.T) {
		start(t, groups(rules(allowHTTPIn), nil))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm1, 80)
			before := scrape(t)
			mustNotConnect(t, f.internet, f.vm1, 80)
			deniedBy(t, before, deniedIn(nsg2), "")
		})
	})
	t.Run("to allow port 80 both NSG1 and NSG2 must have a rule that allows it from the internet", func(t *testing.T) {
		tests := []struct {
			name          string
			first, second []rule
			allowed       bool
		}{
			{"neither has", nil, nil, false},
			{"only NSG1 has", rules(allowHTTPIn), nil, false},
			{"only NSG2 has", nil, rules(allowHTTPIn), false},
			{"both have", rules(allowHTTPIn), rules(allowHTTPIn), true},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				start(t, groups(tt.first, tt.second))
				eachFamily(t, func(t *testing.T, f family) {
					serveTCP(t, f.vm1, 80)
					if tt.allowed {
						mustConnect(t, f.internet, f.vm1, 80)
					} else {
						mustNotConnect(t, f.internet, f.vm1, 80)
					}
				})
			})
		}
	})
}

func inboundVM2(t *testing.T) {
	t.Run("the rules in NSG1 are processed because VM2 is in Subnet1 too", func(t *testing.T) {
		start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm2, 80)
			before := scrape(t)
			mustConnect(t, f.internet, f.vm2, 80)
			since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg1)).hits == 1 })
		})
	})
	t.Run("without a group on its network interface it receives all traffic that NSG1 allows", func(t *testing.T) {
		start(t, groups(rules(allowHTTPIn), nil))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm2, 80)
			before := scrape(t)
			mustConnect(t, f.internet, f.vm2, 80)
			c := since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg1)).hits == 1 })
			if c.hits(nsg2) != 0 {
				t.Errorf("NSG2 decided %v times about traffic of VM2", c.hits(nsg2))
			}
		})
	})
	t.Run("or is denied all traffic that NSG1 denies", func(t *testing.T) {
		start(t, groups(nil, rules(allowHTTPIn)))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm2, 80)
			before := scrape(t)
			mustNotConnect(t, f.internet, f.vm2, 80)
			deniedBy(t, before, deniedIn(nsg1), nsg2)
		})
	})
	t.Run("traffic is allowed or denied to all resources of a subnet when a group is associated with it", func(t *testing.T) {
		d := start(t, labPolicy())
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm1, 80)
			serveTCP(t, f.vm2, 80)
			d.reload(t, labPolicy())
			mustConnect(t, f.internet, f.vm1, 80)
			mustConnect(t, f.internet, f.vm2, 80)
			d.reload(t, groups(nil, rules(allowHTTPIn)))
			mustNotConnect(t, f.internet, f.vm1, 80)
			mustNotConnect(t, f.internet, f.vm2, 80)
		})
	})
}

func inboundVM3(t *testing.T) {
	t.Run("since no group is associated with Subnet2 traffic into it is allowed and processed by NSG2", func(t *testing.T) {
		start(t, groups(nil, rules(allowHTTPIn)))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm3, 80)
			before := scrape(t)
			mustConnect(t, f.internet, f.vm3, 80)
			c := since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg2)).hits == 1 })
			if c.hits(nsg1) != 0 {
				t.Errorf("NSG1 decided %v times about traffic of VM3", c.hits(nsg1))
			}
		})
	})
	t.Run("because NSG2 is associated with its network interface it denies what has no rule there", func(t *testing.T) {
		start(t, groups(rules(allowHTTPIn), nil))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm3, 80)
			before := scrape(t)
			mustNotConnect(t, f.internet, f.vm3, 80)
			deniedBy(t, before, deniedIn(nsg2), nsg1)
		})
	})
}

func inboundVM4(t *testing.T) {
	t.Run("traffic to VM4 is allowed because no group is associated with Subnet3 or its network interface", func(t *testing.T) {
		start(t, groups(nil, nil))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm4, 80)
			before := scrape(t)
			mustConnect(t, f.internet, f.vm4, 80)
			if c := (counts{t, before, scrape(t)}); c.hits(nsg1)+c.hits(nsg2) != 0 {
				t.Errorf("NSG1 decided %v times, NSG2 %v times about traffic of VM4", c.hits(nsg1), c.hits(nsg2))
			}
		})
	})
	t.Run("all network traffic is allowed through a subnet and network interface without a group", func(t *testing.T) {
		start(t, groups(nil, nil))
		eachFamily(t, func(t *testing.T, f family) {
			serveTCP(t, f.vm4, 8080)
			mustConnect(t, f.internet, f.vm4, 8080)
			mustPing(t, f.internet, f.vm4)
			receiver := bindUDP(t, f.vm4, 0)
			send(t, bindUDP(t, f.internet, 0), address(receiver), 1, 100)
			receive(t, receiver, 1)
		})
	})
}
