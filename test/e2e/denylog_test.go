package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var notShown = regexp.MustCompile(`notShown=(\d+)`)

func TestTheLogShowsDeniedPacketsOnlyIfItIsToldTo(t *testing.T) {
	const sent = 40
	deny := func(t *testing.T) (source, destination string) {
		from, to := bindUDP(t, internet, 0), bindUDP(t, vm3, 0)
		before := scrape(t)
		send(t, from, address(to), sent, 64)
		since(t, before, func(c counts) bool { return c.rule(deniedIn(nsg2)).hits >= sent })
		return address(from).String(), address(to).String()
	}
	t.Run("by default no line is about one", func(t *testing.T) {
		d := start(t, labPolicy())
		deny(t)
		if log := d.stderr.String(); strings.Contains(log, "denied") {
			t.Error(log)
		}
	})
	t.Run("with denyLog each is shown or counted", func(t *testing.T) {
		d := start(t, labPolicy(), "denyLog: {perSecond: 5}")
		source, destination := deny(t)
		line := "msg=denied from=internet to=vm3-nic protocol=UDP source=" + source + " destination=" + destination +
			" networkSecurityGroup=NSG2 direction=Inbound rule=DenyAllInBound"
		eventually(t, "all are shown or counted", func() bool {
			log := d.stderr.String()
			counted := strings.Count(log, line)
			if counted == 0 {
				return false
			}
			for _, m := range notShown.FindAllStringSubmatch(log, -1) {
				n, err := strconv.Atoi(m[1])
				if err != nil {
					t.Fatal(err)
				}
				counted += n
			}
			return counted == sent
		})
	})
}
