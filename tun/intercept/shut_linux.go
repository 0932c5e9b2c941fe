package intercept

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/nft"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// table is nsgd's table of nftables, in the families bridge and inet. It drops what goes in and out at interfaces that
// ports mean, unless nsgd's programs stand there: those that come while no nsgd runs, or before it has found them.
const table = "nsgd"

// nftName is what nft takes as the name of an interface, without a meaning of its own.
var nftName = regexp.MustCompile(`^[A-Za-z0-9_.:@-]+$`)

// longestBase is that of a name that a VLAN's can begin with: a point and a digit follow.
const longestBase = unix.IFNAMSIZ - 1 - 2

// closed are the interfaces that ports mean: by their names, and the guests' ports of bridges.
type closed struct{ names, bridges []string }

func closedOf(ports []Port) (c closed, err error) {
	for n := range ports {
		p := &ports[n]
		list, name := &c.bridges, p.Bridge
		if p.Interface != "" {
			list, name = &c.names, p.Interface
		}
		if p.Interface != "" && !p.Shut || slices.Contains(*list, name) {
			continue
		}
		if !nftName.MatchString(name) {
			return c, fmt.Errorf("interface %q: its name is not for rules of nft: letters, digits and _.:@- are allowed", name)
		}
		*list = append(*list, name)
	}
	return c, nil
}

// rules are the table in a family. Kernels without NFT_BRIDGE_META can't tell bridges apart: guests' ports of every
// bridge are meant then, but for those in through.
func (c *closed) rules(family string, through []int, tellsBridges bool) string {
	var b strings.Builder
	set := func(name, kind string, elements []string) {
		fmt.Fprintf(&b, "  set %s { type %s; ", name, kind)
		if len(elements) > 0 {
			fmt.Fprintf(&b, "elements = { %s }; ", strings.Join(elements, ", "))
		}
		b.WriteString("}\n")
	}
	quoted := func(list []string) (all []string) {
		for _, name := range list {
			all = append(all, strconv.Quote(name))
		}
		return all
	}
	var indexes []string
	for _, index := range through {
		indexes = append(indexes, strconv.Itoa(index))
	}
	fmt.Fprintf(&b, "table %s %s {\n", family, table)
	set("attached", "iface_index", indexes)
	set("names", "ifname", quoted(c.names))
	if family == "bridge" {
		set("bridges", "ifname", quoted(c.bridges))
	}
	for _, way := range []struct{ chain, hook, side string }{{"receive", "prerouting", "i"}, {"send", "postrouting", "o"}} {
		// Before everything else of nftables: raw is -300.
		fmt.Fprintf(&b, "  chain %s {\n    type filter hook %s priority -450; policy accept;\n", way.chain, way.hook)
		fmt.Fprintf(&b, "    meta %sif @attached accept\n", way.side)
		for _, name := range c.names { // VLANs on it, which take frames before these hooks, as most tools call them
			if len(name) <= longestBase {
				fmt.Fprintf(&b, "    meta %sifname \"%s.*\" drop\n", way.side, name)
			}
		}
		fmt.Fprintf(&b, "    meta %sifname @names drop\n", way.side)
		if family == "bridge" && len(c.bridges) > 0 {
			of := ""
			if tellsBridges {
				of = fmt.Sprintf("meta %sbrname @bridges ", way.side)
			}
			fmt.Fprintf(&b, "    %smeta %sifkind { \"veth\", \"tun\" } drop\n", of, way.side)
		}
		if family == "inet" && way.side == "i" && len(c.bridges) > 0 {
			// Bridges give what goes to groups of their own, such as LLDP's, to this host past their hooks. No IP goes there.
			b.WriteString("    meta iifkind { \"veth\", \"tun\" } ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop\n")
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// shut closes what ports mean and attached doesn't have; without ports it opens that. Call it inside no namespace.
func (i *Interceptor) shut(ports []Port, attached []int) error {
	c, err := closedOf(ports)
	if err != nil {
		return err
	}
	err = i.do(func() error {
		now, err := c.replace(i.handle, attached, i.table)
		if err == nil && now != noTables && now != i.table {
			i.listed, err = ourTables()
		}
		if i.table = now; err != nil {
			i.table = ""
		}
		return errors.Join(err, i.silence(&c, attached))
	})
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// silence puts the programs at the guests' ports of bridges that no port stands for. What they send to a bridge's own
// groups meets no table, and would teach it that the MACs of others are there.
func (i *Interceptor) silence(c *closed, attached []int) error {
	links, err := linksOf(i.handle)
	if err != nil {
		return err
	}
	meant, silent := map[int]bool{}, map[int]bool{}
	for _, l := range links {
		meant[l.Attrs().Index] = slices.Contains(c.bridges, l.Attrs().Name)
	}
	for _, l := range links {
		index := l.Attrs().Index
		if slices.Contains(attached, index) {
			continue
		}
		if !meant[l.Attrs().MasterIndex] || !isGuest(l) {
			if !i.silent[index] {
				continue
			}
			there, err := filtersOf(i.handle, l) // it has left the bridge
			if err = errors.Join(err, detach(i.handle, there)); err != nil {
				return err
			}
			continue
		}
		if !i.silent[index] && attach(i.handle, l, i.programs.Sends, i.programs.Receives, (&Port{}).programs()) != nil {
			continue // gone meanwhile, or without a hook: the tables close it
		}
		silent[index] = true
	}
	i.silent = silent
	return nil
}

// noTables is what replace says of tables that nobody needs.
const noTables = "none"

// replace puts the tables in place of those that are there, in one transaction. was is what they say already, and done
// what they say now; empty: not known.
func (c *closed) replace(h *netlink.Handle, attached []int, was string) (done string, err error) {
	if len(c.names)+len(c.bridges) == 0 {
		if was != noTables {
			_, err = open()
		}
		return noTables, err
	}
	if was == "" {
		if _, err := ourTables(); err != nil {
			return was, err
		}
	}
	others, err := c.others(h)
	if err != nil {
		return was, err
	}
	narrow := c.rules("bridge", attached, true) + c.rules("inet", attached, true)
	wide := c.rules("bridge", slices.Concat(attached, others), false) + c.rules("inet", attached, true)
	if was != "" && (was == narrow || was == wide) {
		return was, nil
	}
	const anew = "table bridge " + table + "\ndelete table bridge " + table + "\ntable inet " + table + "\ndelete table inet " + table + "\n"
	_, err = nft.Run(anew + narrow)
	if err == nil {
		return narrow, nil
	}
	if _, again := nft.Run(anew + wide); again == nil {
		return wide, nil
	}
	return was, fmt.Errorf("close interfaces that come later: %w", err)
}

// others are the ports of bridges that are not meant.
func (c *closed) others(h *netlink.Handle) (list []int, err error) {
	links, err := linksOf(h)
	if err != nil {
		return nil, err
	}
	meant := map[int]bool{}
	for _, l := range links {
		meant[l.Attrs().Index] = slices.Contains(c.bridges, l.Attrs().Name)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.MasterIndex != 0 && !meant[a.MasterIndex] && !slices.Contains(c.names, a.Name) && isGuest(l) {
			list = append(list, a.Index)
		}
	}
	slices.Sort(list)
	return list, nil
}

// shutAgain puts the tables back when somebody has removed them, or changed anything in them.
func (i *Interceptor) shutAgain() error {
	if c, err := closedOf(i.ports); err != nil || len(c.names)+len(c.bridges) == 0 {
		return err
	}
	same := false
	err := i.do(func() error {
		now, err := ourTables()
		same = err == nil && maps.Equal(now, i.listed)
		return err
	})
	if err != nil || same {
		return err
	}
	i.table = ""
	if err := i.shut(i.ports, i.attached); err != nil {
		return err
	}
	return fmt.Errorf("tables %q of nft: %w", table, ErrMended)
}

// ownSet is what nft lists of nsgd's tables alone. A comment would say more, but kernels before 5.10 keep none.
const ownSet = "set attached {\n\t\ttype iface_index\n"

var tables = []string{"bridge " + table, "inet " + table}

// ourTables are nsgd's tables as nft lists them, by name. It fails with nft.ErrTheirs when somebody else has one.
func ourTables() (map[string]string, error) { return nft.Tables(ownSet, tables...) }

// isShut tells that both tables are there.
func isShut() (bool, error) {
	list, err := ourTables()
	return len(list) == 2, err
}

// open removes nsgd's tables that are there.
func open() (there bool, err error) { return nft.Remove(ownSet, tables...) }

// Shut closes in a namespace what ports mean, without a policy and without programs, until Apply or Detach. What
// nsgd's programs have stays theirs, also those of a run that goes on.
func Shut(namespace string, ports []Port) error {
	err := tun.Do(namespace, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		there, err := filtered(h, nil)
		if err != nil {
			return err
		}
		attached := map[int]bool{}
		for _, f := range there {
			attached[f.link.Attrs().Index] = true
		}
		c, err := closedOf(ports)
		if err != nil {
			return err
		}
		_, err = c.replace(h, slices.Sorted(maps.Keys(attached)), "")
		return err
	})
	if err != nil {
		return fmt.Errorf("intercept: %w", err)
	}
	return nil
}
