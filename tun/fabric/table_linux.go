package fabric

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// table is the fabric's table of nftables, of the family inet.
const table = "nsgd_fabric"

// nftPatience bounds a run of nft, which takes milliseconds.
const nftPatience = 10 * time.Second

// ownCounters is what nft lists of the fabric's table alone.
const ownCounters = "counter strangers {"

// errTheirs: the fabric neither replaces nor removes what somebody else made.
var errTheirs = errors.New("of nft is somebody else's, and nsgd needs the name: give that table another one")

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
		_, err = nft(e)
	default:
		_, err = nft("table inet " + table + "\ndelete table inet " + table + "\n" + r + e)
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

// listed is the table as nft lists it, without counters; empty: there is none. It fails with errTheirs when it is
// somebody else's.
func listed() (string, error) {
	tables, err := nft("list tables")
	if err != nil || !strings.Contains(tables, "table inet "+table+"\n") {
		return "", err
	}
	text, err := nft("list table inet "+table, "-s")
	if err == nil && !strings.Contains(text, ownCounters) {
		err = fmt.Errorf("table inet %s %w", table, errTheirs)
	}
	return text, err
}

// open removes the table. It must run inside the namespace. Without nft it has made none.
func open() (there bool, err error) {
	text, err := listed()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, errTheirs) || err == nil && text == "" {
		return false, nil
	}
	if err == nil {
		_, err = nft("delete table inet " + table)
	}
	return true, err
}

var counted = regexp.MustCompile(`(?m)counter (strangers|past) \{\s*packets (\d+)`)

// tableCounts are the packets of the table's counters. It must run inside the namespace.
func tableCounts() (strangers, past uint64, err error) {
	text, err := nft("list counters table inet " + table)
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

// nft runs commands of nft in this thread's namespace, all of them or none.
func nft(commands string, options ...string) (printed string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), nftPatience)
	defer cancel()
	command := exec.CommandContext(ctx, "nft", append(options, "-f", "-")...)
	command.Stdin = strings.NewReader(commands)
	var out, fault bytes.Buffer
	command.Stdout, command.Stderr = &out, &fault
	err = command.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: install nftables", err)
	}
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(fault.String()), "\n")
		return "", fmt.Errorf("nft: %w: %s", err, first)
	}
	return out.String(), nil
}
