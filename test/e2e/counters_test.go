package e2e

import (
	"strings"
	"testing"
)

const udpHeader = 8

func TestCountersMoveByExactlyWhatWasSent(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		serveTCP(t, f.vm3, 80)
		vnetOut := decided{nsg2, "Outbound", "AllowVnetOutBound", "Allow"}

		t.Run("one flow of datagrams is one hit and all its packets and bytes", func(t *testing.T) {
			const count, size = 25, 100
			from, to := bindUDP(t, f.vm3, 0), bindUDP(t, f.vm4, 0)
			before := scrape(t)
			send(t, from, address(to), count, size)
			receive(t, to, count)
			want := ruleCount{1, count, float64(count * (f.ipHeader + udpHeader + size))}
			c := since(t, before, func(c counts) bool { return c.rule(vnetOut).packets >= count })
			if got := c.rule(vnetOut); got != want {
				t.Errorf("%+v counted %+v, want %+v", vnetOut, got, want)
			}
		})
		t.Run("the answers of a flow count as its packets and are no hit", func(t *testing.T) {
			const size = 60
			from, to := bindUDP(t, f.vm3, 0), bindUDP(t, f.vm4, 0)
			before := scrape(t)
			send(t, from, address(to), 1, size)
			receive(t, to, 1)
			send(t, to, address(from), 4, size)
			receive(t, from, 4)
			want := ruleCount{1, 5, float64(5 * (f.ipHeader + udpHeader + size))}
			c := since(t, before, func(c counts) bool { return c.rule(vnetOut).packets >= want.packets })
			if got := c.rule(vnetOut); got != want {
				t.Errorf("%+v counted %+v, want %+v", vnetOut, got, want)
			}
		})
		t.Run("each denied datagram is a hit", func(t *testing.T) {
			const count, size = 40, 64
			from, to := bindUDP(t, f.internet, 0), bindUDP(t, f.vm3, 0)
			before := scrape(t)
			send(t, from, address(to), count, size)
			want := ruleCount{count, count, float64(count * (f.ipHeader + udpHeader + size))}
			// A scrape reads one counter after the other while packets are still on the way.
			dropped := func(c counts) float64 { return c.after.drops("rule_deny") - before.drops("rule_deny") }
			c := since(t, before, func(c counts) bool {
				return c.rule(deniedIn(nsg2)).packets >= count && dropped(c) >= count
			})
			if got := c.rule(deniedIn(nsg2)); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
			if drops := dropped(c); drops != count {
				t.Errorf("%v drops, want %d", drops, count)
			}
		})
		t.Run("each connection is a hit", func(t *testing.T) {
			const count = 10
			before := scrape(t)
			for range count {
				mustConnect(t, f.internet, f.vm3, 80)
			}
			c := since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg2)).hits >= count })
			if got := c.rule(allowedIn(nsg2)).hits; got != count {
				t.Errorf("%v hits, want %d", got, count)
			}
		})
	})
}

// scrapeOnwards scrapes and checks that no counter went back since the last time.
func scrapeOnwards(t *testing.T, last samples, step string) samples {
	t.Helper()
	now := scrape(t)
	for key, value := range last {
		if strings.Contains(key, "_total") && strings.HasPrefix(key, "nsgd_") && now[key] < value {
			t.Errorf("%s: %s went from %v to %v", step, key, value, now[key])
		}
	}
	return now
}

func TestCountersNeverGoBackOverAReload(t *testing.T) {
	d := start(t, labPolicy())
	serveTCP(t, vm3, 80)
	before := scrape(t)
	mustConnect(t, internet, vm3, 80).Close()
	since(t, before, func(c counts) bool { return c.rule(allowedIn(nsg2)).hits == 1 })

	last := scrape(t)
	for _, step := range []struct {
		name string
		p    groupRules
	}{
		{"the same policy", labPolicy()},
		{"without the rule", groups(nil, nil)},
		{"with the rule again", labPolicy()},
	} {
		d.reload(t, step.p)
		last = scrapeOnwards(t, last, step.name)
	}
	c := counts{t, before, last}
	if got := c.rule(allowedIn(nsg2)).hits; got != 1 {
		t.Errorf("rule that went and came back has %v hits, want 1", got)
	}
}
