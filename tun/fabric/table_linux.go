package fabric

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/tun/nft"
)

// table is the fabric's table of nftables, of the family inet.
const table = "nsgd_fabric"

// ownCounters is what nft lists of the fabric's table alone.
const ownCounters = "counter strangers {"

// inetTable is its name to nft.
const inetTable = "inet " + table

// rules are the table without the elements of its sets. Hooks that drop come before everything else of nftables: raw is
// -300. Input has whole packets alone, so that each has its port. Outer packets are not tracked: each flow inside has a
// port of its own outside, so that they would fill the host's table of connections.
func rules(s *State) string {
	family, kind := "ip", "ipv4_addr"
	if s.Underlay.Is6() {
		family, kind = "ip6", "ipv6_addr"
	}
	return strings.NewReplacer("TABLE", table, "FAMILY", family, "KIND", kind, "UNDERLAY", s.Underlay.String(), "PORT", strconv.Itoa(int(s.Port))).Replace(`table inet TABLE {
  counter strangers { }
  counter past { }
  set hosts { type KIND; }
  set ours { type ifname; }
  chain underlay {
    type filter hook input priority -450; policy accept;
    udp dport PORT FAMILY saddr @hosts FAMILY daddr UNDERLAY accept
    udp dport PORT counter name strangers drop
  }
  chain inside {
    type filter hook prerouting priority -450; policy accept;
    meta iifname @ours counter name past drop
  }
  chain arrives {
    type filter hook prerouting priority -300; policy accept;
    udp dport PORT FAMILY saddr @hosts FAMILY daddr UNDERLAY notrack
  }
  chain leaves {
    type filter hook output priority -300; policy accept;
    udp dport PORT FAMILY saddr UNDERLAY FAMILY daddr @hosts notrack
  }
}
`)
}

// elements are commands that fill the sets.
func elements(s *State) string {
	var b strings.Builder
	set := func(name string, list []string) {
		fmt.Fprintf(&b, "flush set inet %s %s\n", table, name)
		if slices.Sort(list); len(list) > 0 {
			fmt.Fprintf(&b, "add element inet %s %s { %s }\n", table, name, strings.Join(list, ", "))
		}
	}
	devices := []string{strconv.Quote(s.Device)}
	for _, t := range s.Tunnels {
		devices = append(devices, strconv.Quote(t.TUN))
	}
	var hosts []string
	for _, h := range s.Hosts {
		hosts = append(hosts, h.Underlay.String())
	}
	set("ours", devices)
	set("hosts", hosts)
	return b.String()
}

// told reports that the table was told all of the state already. Somebody else may have changed it since.
func (f *Fabric) told(s *State) bool {
	return f.listed != "" && f.rules == rules(s) && f.elements == elements(s)
}

// shut makes the table say what the state needs, in one transaction. It must run inside the namespace.
func (f *Fabric) shut(s *State) error {
	now, err := listed()
	if err != nil {
		return err
	}
	r, e := rules(s), elements(s)
	intact := f.listed != "" && now == f.listed
	switch {
	case intact && r == f.rules && e == f.elements:
		return nil
	case intact && r == f.rules:
		_, err = nft.Run(e)
	default:
		_, err = nft.Run("table inet " + table + "\ndelete table inet " + table + "\n" + r + e)
	}
	if err == nil {
		now, err = listed()
	}
	if err != nil {
		f.listed = ""
		return fmt.Errorf("table %s: %w", table, err)
	}
	f.rules, f.elements, f.listed = r, e, now
	return nil
}

// listed is the table as nft lists it, without counters; empty: there is none. It fails with nft.ErrTheirs when it is
// somebody else's.
func listed() (string, error) {
	list, err := nft.Tables(ownCounters, inetTable)
	return list[inetTable], err
}

// open removes the table. It must run inside the namespace.
func open() (there bool, err error) { return nft.Remove(ownCounters, inetTable) }

var counted = regexp.MustCompile(`(?m)counter (strangers|past) \{\s*packets (\d+)`)

// tableCounts are the packets of the table's counters. It must run inside the namespace.
func tableCounts() (strangers, past uint64, err error) {
	text, err := nft.Run("list counters table inet " + table)
	for _, m := range counted.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseUint(m[2], 10, 64) // digits that the kernel wrote
		if m[1] == "past" {
			past = n
		} else {
			strangers = n
		}
	}
	return strangers, past, err
}
