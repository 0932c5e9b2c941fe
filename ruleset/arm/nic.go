package arm

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for NICs. Those that are not marked are probably Azure's; no recording of them
// was found.
const (
	CodeNoIPConfigurations = "NetworkInterfaceMustHaveAtLeastOneIpConfiguration"
	CodeInvalidIPAddress   = "InvalidIpAddress"
	CodeAddressNotInSubnet = "PrivateIPAddressNotInSubnet"                       // Azure's (Learn, "Troubleshoot common Azure deployment errors")
	CodeAddressReserved    = "PrivateIPAddressInReservedRange"                   // Azure's
	CodePrivateMissing     = "PrivateIPAddressMissing"                           // Azure's (hashicorp/terraform-provider-azurerm issue 15265)
	CodeNoPrimary          = "NetworkInterfaceMustHaveOneOneIPConfigAsPrimary"   // Azure's
	CodeAddressInUse       = "PrivateIPAddressIsAllocated"                       // Azure's (Learn, "Manage Azure private endpoints")
	CodeSeveralNetworks    = "NetworkInterfaceInvalidVirtualNetwork"             // ours
	CodePrefixNotRead      = "PrivateIPAddressPrefixNotRead"                     // ours; in Documents.Unresolved
	CodeTooManyAddresses   = "NetworkInterfaceInvalidNumberOfIpConfigurations"   // ours
	CodeTooManyASGs        = "IpConfigurationInvalidNumberOfSecurityGroups"      // ours
	CodeTooManyMembers     = "ApplicationSecurityGroupInvalidNumberOfMembers"    // ours
	CodeMembersNetworks    = "ApplicationSecurityGroupMembersMustBeFromSameVnet" // ours
)

// Azure's limits of a network interface and an application security group.
const (
	maxAddressesPerInterface = 256
	maxASGsPerConfiguration  = 20
	maxMembersPerASG         = 4000
)

func (l *loader) buildInterface(r *resource) {
	f := l.read(r.file, r.place(), "", r.body)
	f.region = r.region()
	if !f.named(r) {
		return
	}
	n := &policy.NetworkInterface{Name: r.path(), ID: r.identity(), EnableIPForwarding: f.flag("enableIPForwarding", false)}
	n.DisableTCPStateTracking = f.flag("disableTcpStateTracking", false)
	n.MACAddress = f.literal("macAddress")
	f.interfaceDNS(n)
	n.VirtualMachineID = f.readOnlyID("virtualMachine")
	n.PrivateEndpointID = f.readOnlyID("privateEndpoint")
	if id := f.reference("networkSecurityGroup"); id != "" {
		n.NetworkSecurityGroup, _ = f.resolve(groupKind, "networkSecurityGroup", id).(*ruleset.NSG)
	}
	f.markCondition(r)
	configurations := f.objects("ipConfigurations")
	switch {
	case len(configurations) == 0 && len(f.open) == 0:
		f.fault(CodeNoIPConfigurations, "ipConfigurations", "", "a network interface needs at least one ipConfiguration")
		return
	case len(configurations) > maxAddressesPerInterface:
		f.fault(CodeTooManyAddresses, "ipConfigurations", strconv.Itoa(len(configurations)),
			"a network interface has at most %d private addresses", maxAddressesPerInterface)
	}
	complete, claims, dynamic := true, len(l.memberClaims), len(l.dynamic)
	for _, body := range configurations {
		if f.legacyIPv6(r, body) {
			continue
		}
		list, ok := l.readConfiguration(r, n, f, body)
		n.IPConfigurations = append(n.IPConfigurations, list...)
		complete = complete && ok
	}
	complete = complete && len(n.IPConfigurations) > 0
	if len(f.open) > 0 || !complete {
		l.memberClaims, l.dynamic = l.memberClaims[:claims], l.dynamic[:dynamic]
		l.registerOpen(r, f.cause)
		for i := range n.IPConfigurations {
			c := &n.IPConfigurations[i]
			l.index.add(&entry{kind: configurationKind, id: c.ID, scope: r.scope(), file: r.file, cause: f.cause}, n.Name+"/"+c.Name)
		}
		return
	}
	if len(n.IPConfigurations) == 1 || len(configurations) == 1 {
		n.IPConfigurations[0].Primary = true
	}
	f.checkPrimary(r, n)
	f.checkNetwork(n)
	if !l.register(r, n.ID, n, n.Name) {
		l.memberClaims, l.dynamic = l.memberClaims[:claims], l.dynamic[:dynamic]
		return
	}
	l.out.Set.NetworkInterfaces = append(l.out.Set.NetworkInterfaces, n)
	if n.PrivateEndpointID != "" {
		l.endpointed[strings.ToLower(n.PrivateEndpointID)] = true
	}
	if r.anonymous() {
		return
	}
	for i := range n.IPConfigurations {
		c := &n.IPConfigurations[i]
		l.owners[c] = n
		l.index.add(&entry{kind: configurationKind, id: c.ID, scope: r.scope(), file: r.file, object: c}, n.Name+"/"+c.Name)
	}
}

// readOnlyID is the id of what a NIC belongs to. Such fields are read-only in Azure, so an
// expression in a template means nothing.
func (f *fields) readOnlyID(field string) string {
	owner, _ := lookup(f.values, field).(map[string]any)
	id, _ := lookup(owner, "id").(string)
	if isExpression(id) {
		return ""
	}
	return id
}

// readConfiguration reads an ipConfiguration and reports whether it can be used. One with a block of
// addresses gives one of a single address for each. Its open fields are open fields of the NIC too.
func (l *loader) readConfiguration(r *resource, n *policy.NetworkInterface, nic *fields, body map[string]any) (list []policy.IPConfiguration, ok bool) {
	name, _ := lookup(body, "name").(string)
	f := l.read(r.file, r.place()+"/ipConfigurations/"+name, "", body)
	f.region = r.region()
	c := policy.IPConfiguration{Name: name, Primary: f.flag("primary", false)}
	if c.ID, _ = lookup(body, "id").(string); c.ID == "" || isExpression(c.ID) {
		c.ID = n.ID + "/ipConfigurations/" + name
	}
	if id := f.reference("subnet"); id != "" {
		c.Subnet, _ = f.resolve(subnetKind, "subnet", id).(*policy.Subnet)
	} else if !f.open["subnet"] && !f.withheld() && lookup(f.values, "subnet") == nil {
		f.fault(CodeInvalidResourceReference, "subnet", "", "an ipConfiguration needs the id of its subnet")
	}
	if c.Subnet != nil {
		f.checkUse(r, c.Subnet)
	}
	a := f.address()
	c.Address = a.first
	if a.dynamic {
		l.dynamic = append(l.dynamic, dynamicAddress{f, n, len(n.IPConfigurations), a.size, a.ipv6})
	}
	c.ApplicationSecurityGroups = f.asgs("applicationSecurityGroups")
	if count := len(c.ApplicationSecurityGroups); count > maxASGsPerConfiguration {
		f.fault(CodeTooManyASGs, "applicationSecurityGroups", strconv.Itoa(count),
			"an ipConfiguration is in at most %d application security groups", maxASGsPerConfiguration)
	}
	outward := f.forTranslation()
	c.PublicIPAddress = outward.publicIP("publicIPAddress")
	c.UnknownPools = outward.claimMemberships(n, len(n.IPConfigurations))
	for field := range f.open {
		nic.open["ipConfigurations/"+field] = true
	}
	nic.because(f.cause)
	for range a.size {
		if c.Subnet != nil && c.Address.IsValid() {
			l.checkAddress(f, &c)
		}
		list = append(list, c)
		c.Address, c.PublicIPAddress, c.Primary = c.Address.Next(), nil, false
	}
	return list, c.Subnet != nil && (a.first.IsValid() || a.dynamic)
}

// legacyIPv6 passes over an IPv6 ipConfiguration without a subnet, the form of load balancers
// before virtual networks had IPv6.
func (f *fields) legacyIPv6(r *resource, body map[string]any) bool {
	version, _ := propertyOf(body, "privateIPAddressVersion").(string)
	if !strings.EqualFold(version, "IPv6") || propertyOf(body, "subnet") != nil || propertyOf(body, "privateIPAddress") != nil {
		return false
	}
	name, _ := lookup(body, "name").(string)
	f.l.warn(ruleset.Fault{Code: CodeNotTranslated, File: r.file, Resource: r.place() + "/ipConfigurations/" + name, Field: "subnet",
		Message: "an IPv6 ipConfiguration without a subnet is in no virtual network: nothing is translated to it"})
	return true
}

// addressing is what an ipConfiguration has: an address, or size ones from the first on. It is dynamic
// when Azure is to choose them.
type addressing struct {
	first         netip.Addr
	size          int // 1, or that of a block
	dynamic, ipv6 bool
}

// The longest and shortest prefix of a block of addresses that is read. Azure's documents have /28.
const minBlockBits, maxBlockBits = 28, 32

// address reads privateIPAddress, and the block that it or privateIPAddressPrefixLength asks for.
func (f *fields) address() addressing {
	const field, lengthField = "privateIPAddress", "privateIPAddressPrefixLength"
	text, length := f.text(field), f.text(lengthField)
	address, bits, isBlock := strings.Cut(text, "/")
	at, value := lengthField, length
	if isBlock {
		at, value, length = field, text, bits
	}
	a := addressing{size: 1}
	a.first, a.dynamic, a.ipv6 = f.single(address)
	switch {
	case length == "" || !a.first.IsValid() && !a.dynamic || length == "128" && a.ipv6:
		return a
	case a.ipv6:
		f.markOpenBecause(CodePrefixNotRead, lengthField, length, "blocks of IPv6 addresses are not read: the resource was not read")
		return a
	}
	n, err := strconv.Atoi(length)
	if err != nil || n < minBlockBits || n > maxBlockBits {
		f.fault(CodeInvalidIPAddress, at, value, "allowed are a single address and a block of %d to %d bits", minBlockBits, maxBlockBits)
		return a
	}
	a.size = 1 << (maxBlockBits - n)
	if block := netip.PrefixFrom(a.first, n); a.first.IsValid() && block.Masked() != block {
		f.fault(CodeInvalidIPAddress, field, text, "a block of %d addresses begins at %s", a.size, block.Masked().Addr())
	}
	return a
}

// single reads an address, the text of privateIPAddress.
func (f *fields) single(text string) (address netip.Addr, dynamic, ipv6 bool) {
	const field, versionField = "privateIPAddress", "privateIPAddressVersion"
	version := f.text(versionField)
	if f.open[field] || f.withheld() {
		return netip.Addr{}, false, false
	}
	if text == "" && f.missesStatic(field) {
		return netip.Addr{}, false, false
	}
	if text == "" {
		if version != "" && !strings.EqualFold(version, "IPv4") && !strings.EqualFold(version, "IPv6") {
			f.fault(CodeInvalidIPAddress, versionField, version, "allowed are IPv4 and IPv6")
			return netip.Addr{}, false, false
		}
		return netip.Addr{}, !f.open[versionField], strings.EqualFold(version, "IPv6")
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		f.fault(CodeInvalidIPAddress, field, text, "allowed is an IPv4 or IPv6 address")
		return netip.Addr{}, false, false
	}
	family := "IPv4"
	if a.Is6() {
		family = "IPv6"
	}
	if version != "" && !strings.EqualFold(version, family) {
		f.fault(CodeInvalidIPAddress, "privateIPAddressVersion", version, "the address %s is %s; allowed are IPv4 and IPv6, as the address is", a, family)
	}
	return a, false, a.Is6()
}

// missesStatic reports a fault where an address is static, and no field says which. Of dynamic ones Azure shows
// the address too.
func (f *fields) missesStatic(field string) bool {
	const method = "privateIPAllocationMethod"
	if !strings.EqualFold(known(f.values, method), "Static") {
		return false
	}
	f.fault(CodePrivateMissing, field, "", "Private IP address is required when %s is Static in IP configuration %s.", method, f.place)
	return true
}

// checkPrimary checks that one of several ipConfigurations of a template's network interface is the primary one.
// Documents that are no templates may leave it out.
func (f *fields) checkPrimary(r *resource, n *policy.NetworkInterface) {
	if r.templated() && !slices.ContainsFunc(n.IPConfigurations, func(c policy.IPConfiguration) bool { return c.Primary }) {
		f.fault(CodeNoPrimary, "ipConfigurations", "",
			"Network Interface %s specifies multiple IPConfigurations but none of the IPConfigurations is specified as Primary.", n.Name)
	}
}

// checkAddress checks that an address is in its subnet and that no other resource has it.
func (l *loader) checkAddress(f *fields, c *policy.IPConfiguration) {
	const field = "privateIPAddress"
	inside := len(c.Subnet.Prefixes) == 0 // they are faulty and reported
	for _, p := range c.Subnet.Prefixes {
		inside = inside || p.Contains(c.Address)
		if keeps(p, c.Address) {
			f.fault(CodeAddressReserved, field, c.Address.String(),
				"Private static IP address %s falls within reserved IP range of subnet prefix %s: Azure keeps the first %d and the last.", c.Address, p, reservedAddresses)
		}
	}
	if !inside {
		f.fault(CodeAddressNotInSubnet, field, c.Address.String(), "the address is outside subnet %q of virtual network %q: %s",
			c.Subnet.Name, c.Subnet.VirtualNetwork.Name, listedPrefixes(c.Subnet.Prefixes))
	}
	key := usedAddress{c.Subnet.VirtualNetwork, c.Address}
	if other, ok := l.addresses[key]; ok {
		f.fault(CodeAddressInUse, field, c.Address.String(), "the address is taken by %s in the same virtual network", other)
		return
	}
	l.addresses[key] = f.place
	l.addressCount[c.Subnet.VirtualNetwork]++
	if l.addressCount[c.Subnet.VirtualNetwork] == maxAddressesPerNetwork+1 {
		f.fault(CodeTooManyNetworkAddresses, field, c.Address.String(),
			"virtual network %q has more than %d private addresses", c.Subnet.VirtualNetwork.Name, maxAddressesPerNetwork)
	}
}

// keeps reports whether an address is one of those of a prefix of a subnet that Azure keeps for itself.
func keeps(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || a.Is6() {
		return false
	}
	first, four := binary.BigEndian.Uint32(p.Addr().AsSlice()), a.As4()
	n := binary.BigEndian.Uint32(four[:]) - first
	return n < reservedAddresses || n == 1<<(32-p.Bits())-1
}

// usedAddress is an address in use.
type usedAddress struct {
	network *policy.VirtualNetwork
	address netip.Addr
}

// checkNetwork checks that a NIC is in one virtual network.
func (f *fields) checkNetwork(n *policy.NetworkInterface) {
	first := n.IPConfigurations[0].Subnet.VirtualNetwork
	for i := range n.IPConfigurations {
		c := &n.IPConfigurations[i]
		if other := c.Subnet.VirtualNetwork; other != first {
			f.fault(CodeSeveralNetworks, "ipConfigurations", c.Name,
				"the subnets of a network interface are in one virtual network; this one is in %q, the first in %q", other.Name, first.Name)
		}
	}
}
