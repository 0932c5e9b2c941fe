package arm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// CodeSubnetFull is Azure's.
const CodeSubnetFull = "SubnetIsFull"

// reservedAddresses is how many addresses Azure keeps at the beginning of each prefix of a
// subnet. It keeps the last one too.
const reservedAddresses = 4

// dynamicAddress is an ipConfiguration without an address.
type dynamicAddress struct {
	f     *fields
	nic   *policy.NetworkInterface
	index int
	size  int // of a block, whose further ipConfigurations follow; else 1
	ipv6  bool
}

// fullSubnet is a subnet without a free address of a family.
type fullSubnet struct {
	subnet *policy.Subnet
	size   int // of what was looked for
	ipv6   bool
}

// assignments are the addresses that were chosen in a subnet.
type assignments struct {
	subnet *policy.Subnet
	file   string // of the first
	chosen []string
}

// reserveAddresses keeps the addresses that frontends of load balancers have from being chosen.
func (l *loader) reserveAddresses(r *resource) {
	frontends, _ := propertyOf(r.body, kindPaths[frontendKind]).([]any)
	for _, v := range frontends {
		frontend, _ := v.(map[string]any)
		reference, _ := propertyOf(frontend, "subnet").(map[string]any)
		id, _ := lookup(reference, "id").(string)
		text, _ := propertyOf(frontend, "privateIPAddress").(string)
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		if e, _ := l.index.resolve(subnetKind, id, r.file); e != nil && e.object != nil {
			l.reserved[usedAddress{e.object.(*policy.Subnet).VirtualNetwork, a}] = true
		}
	}
}

// assignAddresses chooses the addresses of ipConfigurations that have none. All that are
// written down are known.
func (l *loader) assignAddresses() {
	for _, d := range l.dynamic {
		a := l.assign(d.f, d.nic.IPConfigurations[d.index].Subnet, d.size, d.ipv6)
		for i := range d.size {
			d.nic.IPConfigurations[d.index+i].Address = a
			a = a.Next()
		}
	}
}

// assign chooses the subnet's first free address of a family, or the first free block of several;
// not valid when there is none, which is a fault.
func (l *loader) assign(f *fields, s *policy.Subnet, size int, ipv6 bool) (a netip.Addr) {
	const field = "privateIPAddress"
	family, block, any := "IPv4", "", false
	if size > 1 {
		block = fmt.Sprintf(" for a block of %d", size)
	}
	if ipv6 {
		family = "IPv6"
	}
	for _, p := range s.Prefixes {
		if p.Addr().Is6() != ipv6 {
			continue
		}
		any = true
		if a = l.firstFree(s.VirtualNetwork, p, size); a.IsValid() {
			break
		}
	}
	switch {
	case a.IsValid():
	case any && l.full[fullSubnet{s, size, ipv6}]: // told already
		return a
	case any:
		l.full[fullSubnet{s, size, ipv6}] = true
		f.fault(CodeSubnetFull, field, "", "Subnet %s has no free %s address%s: Azure keeps the first %d and the last of each prefix", s.Name, family, block, reservedAddresses)
		return a
	case len(s.Prefixes) > 0:
		f.fault(CodeAddressNotInSubnet, field, "", "subnet %q of virtual network %q has no %s prefix: %s", s.Name, s.VirtualNetwork.Name, family, listedPrefixes(s.Prefixes))
		return a
	default: // its prefixes are faulty, and reported
		return a
	}
	chosen, c := a.String(), policy.IPConfiguration{Subnet: s, Address: a}
	if size > 1 {
		chosen += fmt.Sprintf(" and %d more", size-1)
	}
	for range size {
		l.checkAddress(f, &c)
		c.Address = c.Address.Next()
	}
	i := slices.IndexFunc(l.assigned, func(have *assignments) bool { return have.subnet == s })
	if i < 0 {
		i = len(l.assigned)
		l.assigned = append(l.assigned, &assignments{subnet: s, file: f.file})
	}
	l.assigned[i].chosen = append(l.assigned[i].chosen, f.place+" "+chosen)
	return a
}

// firstFree is the first address of a subnet's prefix that nobody has, or the first of so many; not
// valid when there is none. A block begins at a multiple of its size.
func (l *loader) firstFree(v *policy.VirtualNetwork, p netip.Prefix, size int) netip.Addr {
	a, known := l.nextFree[usedAddress{v, p.Addr()}]
	if !known || size > 1 {
		a = p.Addr()
		for range reservedAddresses {
			a = a.Next()
		}
	}
	free := 0 // addresses before this one, in the block that it is in
	for last := netipx.PrefixLastIP(p); a.IsValid() && a.Less(last); a = a.Next() {
		if bytes := a.AsSlice(); int(bytes[len(bytes)-1])%size == 0 {
			free = 0
		}
		key := usedAddress{v, a}
		if _, used := l.addresses[key]; used || l.reserved[key] {
			free = 0
			continue
		}
		if free++; free < size {
			continue
		}
		if size == 1 {
			l.nextFree[usedAddress{v, p.Addr()}] = a
		}
		for range size - 1 {
			a = a.Prev()
		}
		return a
	}
	return netip.Addr{}
}

// warnOfAssigned says which addresses were chosen.
func (l *loader) warnOfAssigned() {
	for _, s := range l.assigned {
		l.warn(ruleset.Fault{Code: CodeAddressNotAssigned, File: s.file, Field: "privateIPAddress",
			Resource: strings.Join([]string{kindPaths[networkKind], s.subnet.VirtualNetwork.Name, kindPaths[subnetKind], s.subnet.Name}, "/"),
			Message:  "Azure assigns these addresses when it deploys; taken here are the first free ones: " + ruleset.Listed(s.chosen) + "; --runtime or the field gives others"})
	}
}
