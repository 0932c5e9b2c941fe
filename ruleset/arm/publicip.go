package arm

import (
	"net/netip"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes for public addresses. PublicIPAddressInUse is Azure's
// (microsoft/azure-tools-for-java issue 91). The others are ours.
const (
	CodePublicAddressInUse  = "PublicIPAddressInUse" // Azure's (recordings of azure-xplat-cli)
	CodePublicAddressTwice  = "PublicIPAddressDuplicate"
	CodePublicAddressFamily = "PublicIPAddressVersionMismatch"
	CodeInvalidPublicPrefix = "PublicIPPrefixInvalidPrefix"
	CodeInvalidSKU          = "ResourceInvalidSku"
	CodePublicIdle          = "PublicIPIdleTimeoutIsOutOfRange"          // Azure's
	CodeStandardDynamic     = "StandardSkuPublicIPAddressesMustBeStatic" // Azure's
	// CodePublicNotAssigned and CodeNotTranslated are in Documents.Warnings.
	CodePublicNotAssigned = "PublicIPAddressNotAssigned"
	CodeNotTranslated     = "TranslationNotInDocuments"
)

// Azure's limits of an idle timeout, in minutes, and of a prefix, in bits. The largest
// prefix is one of a custom range, a /21.
const (
	minIdleTimeout    = 4
	maxPublicIPIdle   = 30
	defaultIdle       = 4 * time.Minute
	leastPublicPrefix = 21
)

// notAssigned is what PowerShell writes for an address that Azure has not assigned.
const notAssigned = "Not Assigned"

// publicClaim is a public address that names the resource it belongs to.
type publicClaim struct {
	f       *fields
	address *policy.PublicIPAddress
	id      string
}

func (l *loader) buildPublicAddress(r *resource) {
	f := l.readTranslating(r.file, r.place(), r.body)
	if !f.named(r) {
		return
	}
	p := &policy.PublicIPAddress{Name: r.name, ID: r.identity(), SKU: f.sku(r, policy.SKUBasic, policy.SKUStandard, policy.SKUStandardV2)}
	p.IdleTimeout = f.idle(CodePublicIdle, maxPublicIPIdle, defaultIdle)
	p.Address, p.IPv6 = f.publicAddress()
	if method := f.text("publicIPAllocationMethod"); strings.EqualFold(method, "Dynamic") && p.SKU != policy.SKUBasic {
		f.fault(CodeStandardDynamic, "publicIPAllocationMethod", method, "Standard sku publicIp %s must have AllocationMethod set to Static.", p.Name)
	}
	f.checkPublic(r, p)
	f.markCondition(r)
	if len(f.open) > 0 {
		p.Address = netip.Addr{}
	}
	if !l.register(r, p.ID, p, p.Name) {
		return
	}
	l.out.Set.PublicIPAddresses = append(l.out.Set.PublicIPAddresses, p)
	if other := l.holders[p.Address]; p.Address.IsValid() && other != nil {
		f.fault(CodePublicAddressTwice, "ipAddress", p.Address.String(), "the address is that of public IP address %q too", other.Name)
	}
	l.holders[p.Address] = p
	if id := f.reference("ipConfiguration"); id != "" {
		l.publicClaims = append(l.publicClaims, publicClaim{f, p, id})
	}
}

// publicAddress reads ipAddress and the IP version. Without a version in the document, the
// address decides.
func (f *fields) publicAddress() (a netip.Addr, ipv6 bool) {
	const field, versionField = "ipAddress", "publicIPAddressVersion"
	version, text := f.text(versionField), f.text(field)
	ipv6 = strings.EqualFold(version, "IPv6")
	if version != "" && !ipv6 && !strings.EqualFold(version, "IPv4") {
		f.fault(CodePublicAddressFamily, versionField, version, "allowed are IPv4 and IPv6")
	}
	if text == "" || strings.EqualFold(text, notAssigned) {
		if len(f.open) == 0 {
			f.l.warn(f.newFault(CodePublicNotAssigned, field, "",
				"the address is chosen when the resource is deployed, so nothing is translated by it; write it down as ipAddress to use it here"))
		}
		return a, ipv6
	}
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback():
		f.fault(CodeInvalidIPAddress, field, text, "allowed is an IPv4 or IPv6 address")
		return netip.Addr{}, ipv6
	case version != "" && a.Is6() != ipv6:
		f.fault(CodePublicAddressFamily, versionField, version, "the address %s is not of that version", a)
	}
	return a, a.Is6()
}

func (l *loader) buildPublicPrefix(r *resource) {
	f := l.readTranslating(r.file, r.place(), r.body)
	if !f.named(r) {
		return
	}
	p := &policy.PublicIPPrefix{Name: r.name, ID: r.identity(), SKU: f.sku(r, policy.SKUStandard, policy.SKUStandardV2)}
	const field = "ipPrefix"
	if text := f.text(field); text != "" {
		prefix, err := netip.ParsePrefix(text)
		switch {
		case err != nil || prefix.Addr().Is4In6() || prefix != prefix.Masked():
			f.fault(CodeInvalidPublicPrefix, field, text, "allowed is a CIDR without host bits")
		case prefix.Addr().BitLen()-prefix.Bits() > 32-leastPublicPrefix:
			f.fault(CodeInvalidPublicPrefix, field, text, "allowed are prefixes of %d addresses at most", 1<<(32-leastPublicPrefix))
		default:
			p.Prefix = prefix
		}
	} else if len(f.open) == 0 {
		l.warn(f.newFault(CodePublicNotAssigned, field, "",
			"the prefix is chosen when the resource is deployed, so nothing is translated by it; write it down as ipPrefix to use it here"))
	}
	f.markCondition(r)
	if len(f.open) > 0 {
		p.Prefix = netip.Prefix{}
	}
	if l.register(r, p.ID, p, p.Name) {
		l.out.Set.PublicIPPrefixes = append(l.out.Set.PublicIPPrefixes, p)
	}
}

// sku reads a resource's SKU, which is beside its properties. The first of allowed is the
// default.
func (f *fields) sku(r *resource, allowed ...policy.SKU) policy.SKU {
	body := &fields{l: f.l, file: f.file, place: f.place, values: r.body, open: f.open, translating: f.translating}
	defer func() { f.because(body.cause) }()
	object := body.object("sku")
	if object == nil {
		return allowed[0]
	}
	body.values = object
	name := body.text("name")
	if name == "" {
		return allowed[0]
	}
	for _, s := range allowed {
		if strings.EqualFold(string(s), name) {
			return s
		}
	}
	texts := make([]string, len(allowed))
	for i, s := range allowed {
		texts[i] = string(s)
	}
	f.fault(CodeInvalidSKU, "sku", name, "allowed are %s", strings.Join(texts, ", "))
	return allowed[0]
}

// idle reads idleTimeoutInMinutes.
func (f *fields) idle(code string, most int, otherwise time.Duration) time.Duration {
	const field = "idleTimeoutInMinutes"
	text := f.text(field)
	if text == "" {
		return otherwise
	}
	return time.Duration(f.number(field, text, code, minIdleTimeout, most, "minutes")) * time.Minute
}

// resolveTranslating resolves a reference that only translation needs; nil when that fails.
// A resource that exists elsewhere is a warning, not a fault: a policy is fit for use
// without it.
func (f *fields) resolveTranslating(k kind, field, id string) any {
	e, problem := f.l.index.resolve(k, id, f.file)
	switch {
	case e == nil && (k.isID(id) || len(f.l.index.byName[k]) == 0):
		// The field may be left out: what it is a part of is read.
		at := *f
		at.translating, at.open = true, map[string]bool{}
		at.missing(k, field, id, problem)
		f.because(at.cause)
	case e == nil:
		f.fault(CodeInvalidResourceReference, field, id, "%s", problem)
	case e.object == nil:
		at := *f
		at.open = map[string]bool{}
		at.dependOn(e.cause, field)
		f.because(at.cause)
	default:
		if problem != "" {
			f.l.warn(f.newFault(CodeByNameAlone, field, id, problem))
		}
		return e.object
	}
	return nil
}

// publicIP reads a reference to a public address; nil when there is none. A broken
// reference gives a public address that is not known.
func (f *fields) publicIP(field string) *policy.PublicIPAddress {
	id := f.reference(field)
	if id == "" {
		if f.open[field] {
			return &policy.PublicIPAddress{}
		}
		return nil
	}
	p, _ := f.resolveTranslating(publicAddressKind, field, id).(*policy.PublicIPAddress)
	if p == nil {
		return &policy.PublicIPAddress{Name: lastSegment(id)}
	}
	f.allocate(p, field)
	return p
}

// allocate gives a public address to the resource of f. A second one is a fault.
func (f *fields) allocate(p *policy.PublicIPAddress, field string) {
	if other, ok := f.l.publicUsers[p]; ok && other != f.place {
		f.fault(CodePublicAddressInUse, field, p.Name,
			"%s is referencing public IP address %s that is already allocated to resource %s.", f.place, p.Name, other)
		return
	}
	f.l.publicUsers[p] = f.place
}

// relatePublicAddresses gives public addresses to the resources that they name, and
// compares the families of public and private addresses.
func (l *loader) relatePublicAddresses() {
	for _, c := range l.publicClaims {
		segments := strings.Split(strings.Trim(c.id, "/"), "/")
		n := len(segments)
		of := func(i int, k kind) bool { return n >= i && strings.EqualFold(segments[n-i], kindPaths[k]) }
		const field = "ipConfiguration"
		switch {
		case of(2, configurationKind) && (n <= 3 || of(4, interfaceKind)):
			e, _ := l.index.resolve(configurationKind, c.id, c.f.file)
			if e == nil || e.object == nil {
				c.f.configuration(field, c.id, "nothing is translated by the address")
				continue
			}
			configuration := e.object.(*policy.IPConfiguration)
			if configuration.PublicIPAddress == nil {
				configuration.PublicIPAddress = c.address
			}
			l.checkClaim(c, field, configuration.PublicIPAddress, e)
		case of(2, frontendKind):
			e, _ := l.index.resolve(frontendKind, c.id, c.f.file)
			if e == nil || e.object == nil {
				l.warn(c.f.newFault(CodeNotTranslated, field, c.id, "the load balancer is not in the documents, or was not read: nothing is translated by the address"))
				continue
			}
			l.checkClaim(c, field, e.object.(*policy.Frontend).PublicIPAddress, e)
		}
	}
	for _, n := range l.out.Set.NetworkInterfaces {
		for i := range n.IPConfigurations {
			c := &n.IPConfigurations[i]
			if p := c.PublicIPAddress; p != nil && p.ID != "" && p.IPv6 != c.Address.Is6() {
				f := &fields{l: l, file: l.fileOf(n.ID), place: kindPaths[interfaceKind] + "/" + n.Name + "/ipConfigurations/" + c.Name}
				f.fault(CodePublicAddressFamily, "publicIPAddress", p.Name, "the private address %s and the public one are not of one family", c.Address)
			}
		}
	}
}

// checkClaim compares a public address with the one of the resource that it names.
func (l *loader) checkClaim(c publicClaim, field string, has *policy.PublicIPAddress, by *entry) {
	if has != c.address {
		c.f.fault(CodePublicAddressInUse, field, c.id, "the resource named here has another public IP address, or none")
		return
	}
	if user, ok := l.publicUsers[c.address]; ok {
		if !strings.EqualFold(lastSegment(user), lastSegment(by.id)) {
			c.f.fault(CodePublicAddressInUse, field, c.id, "the public IP address is already allocated to resource %s.", user)
		}
		return
	}
	l.publicUsers[c.address] = by.id
}
