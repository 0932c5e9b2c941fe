package ruleset

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// peer checks one side's addresses. Exactly one of the three forms is allowed, but each
// form that is there is checked.
func (v *validator) peer(r *SecurityRule, f *sideFields, s *Side) Peer {
	if r.anyUnknown(f.prefix, f.prefixes, f.groups) {
		return Peer{}
	}
	var forms []string
	var p Peer
	if s.AddressPrefix != "" {
		forms = append(forms, f.prefix)
		p = v.singleAddress(r, f.prefix, s.AddressPrefix)
	}
	if len(s.AddressPrefixes) > 0 {
		forms = append(forms, f.prefixes)
		p.Prefixes = v.addressList(r, f.prefixes, s.AddressPrefixes)
	}
	if len(s.ApplicationSecurityGroups) > 0 {
		forms = append(forms, f.groups)
		p.ApplicationSecurityGroups = v.groups(r, f.groups, s.ApplicationSecurityGroups)
	}
	switch len(forms) {
	case 0:
		v.fail(r, CodeParametersMissing, f.prefix, "",
			"Required security rule parameters are missing for security rule with Id: %s. One of %s, %s and %s is needed; %q stands for every address.",
			r.identity(), f.prefix, f.prefixes, f.groups, "*")
	case 1:
	default:
		v.fail(r, CodeInvalidCombination, f.prefix, strings.Join(forms, ", "),
			"Allowed is exactly one of %s, %s and %s.", f.prefix, f.prefixes, f.groups)
	}
	return p
}

// singleAddress reads an address, a CIDR, a tag or "*".
func (v *validator) singleAddress(r *SecurityRule, field, text string) Peer {
	if text == "*" {
		return Peer{Any: true}
	}
	prefix, problem := rulePrefix(text)
	if problem == "" {
		return Peer{Prefixes: []netip.Prefix{prefix}}
	}
	tag, unknown := canonicalTag(text, v.known)
	if unknown == "" {
		return Peer{Tag: tag}
	}
	if LooksLikeTag(text) {
		problem = unknown
	}
	v.invalidAddress(r, field, text, problem)
	return Peer{}
}

// rulePrefix reads an address or a CIDR of a rule, or a number that stands for an address.
func rulePrefix(text string) (netip.Prefix, string) {
	if a, ok := NumberedAddress(text); ok {
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	return ParsePrefix(text)
}

// NumberedAddress is the IPv4 address that a decimal number stands for. Azure takes such a
// number in a rule; that it means this address is how .NET reads it.
func NumberedAddress(text string) (a netip.Addr, ok bool) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || text[0] == '0' && text != "0" { // .NET takes those for octal numbers
		return a, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b), true
}

func (v *validator) addressList(r *SecurityRule, field string, texts []string) []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		prefix, problem := rulePrefix(text)
		if problem == "" {
			prefixes = append(prefixes, prefix)
			continue
		}
		if _, noTag := canonicalTag(text, nil); noTag == "" || text == "*" {
			v.fail(r, CodeUnsupportedValue, field, text,
				"Security rule parameter %s for rule with Id %s cannot specify existing VIRTUALNETWORK, INTERNET, AZURELOADBALANCER, '*' or system tags. Unsupported value used: %s. Allowed are addresses and CIDRs.",
				singular(field), r.identity(), text)
			continue
		}
		v.invalidAddress(r, field, text, problem)
	}
	v.overlaps(r, field, prefixes)
	return prefixes
}

func (v *validator) invalidAddress(r *SecurityRule, field, text, problem string) {
	v.fail(r, CodeInvalidAddressPrefix, field, text,
		"Security rule %s has invalid Address prefix. Value provided: %s (%s). Allowed are an address, a CIDR without host bits, a service tag and '*'.",
		r.identity(), Clip(text), problem)
}

// singular is the name of a prefix list in Azure's messages.
func singular(field string) string { return strings.TrimSuffix(title(field), "es") }

// overlaps finds prefixes that lie within others of the same list.
func (v *validator) overlaps(r *SecurityRule, field string, prefixes []netip.Prefix) {
	sorted := slices.SortedFunc(slices.Values(prefixes), netip.Prefix.Compare)
	outer := 0 // a prefix that contains sorted[i] is sorted[outer]
	for i := 1; i < len(sorted); i++ {
		if !sorted[outer].Overlaps(sorted[i]) {
			outer = i
			continue
		}
		v.fail(r, CodeOverlappingSubnets, field, sorted[i].String(),
			"Security rule parameter %s for rule with Id %s contains overlapping subnets [%s, %s], which is not permitted.",
			singular(field), r.identity(), sorted[outer], sorted[i])
	}
}

// ParsePrefix reads an address or a CIDR without host bits. For any other text, problem
// says what is wrong.
func ParsePrefix(text string) (p netip.Prefix, problem string) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return p, "no IP address"
		case a.Zone() != "":
			return p, "an address with a zone"
		case a.Is4In6():
			return p, "an IPv4 address in IPv6 form"
		}
		return netip.PrefixFrom(a, a.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, "no CIDR"
	case p.Addr().Is4In6():
		return p, "an IPv4 address in IPv6 form"
	case p != p.Masked():
		return p, "host bits are set; the network is " + p.Masked().String()
	}
	return p, ""
}

func (v *validator) groups(r *SecurityRule, field string, ids []string) []string {
	if len(ids) > MaxASGsPerSide {
		v.fail(r, CodeTooManyASGs, field, strconv.Itoa(len(ids)),
			"A security rule may have up to %d Application Security Groups in the source or destination fields. The requested configuration has %d in the %s field.",
			MaxASGsPerSide, len(ids), title(field))
	}
	if v.asgs == nil {
		v.asgs = map[string]bool{}
	}
	for _, id := range ids {
		if id == "" {
			v.fail(r, CodeInvalidASG, field, "", "Security rule names an application security group without id. A resource id is needed.")
			continue
		}
		v.asgs[strings.ToLower(id)] = true
	}
	return slices.Clone(ids)
}

// families checks that a rule's addresses are all IPv4 or all IPv6. The fault names the
// first that differs.
func (v *validator) families(raw *SecurityRule, r *Rule) {
	var first netip.Prefix
	for _, side := range []struct {
		fields   *sideFields
		single   string
		prefixes []netip.Prefix
	}{
		{&sourceFields, raw.Source.AddressPrefix, r.Source.Prefixes},
		{&destinationFields, raw.Destination.AddressPrefix, r.Destination.Prefixes},
	} {
		field := side.fields.prefixes
		if side.single != "" {
			field = side.fields.prefix
		}
		for _, p := range side.prefixes {
			if !first.IsValid() {
				first = p
			}
			if p.Addr().Is4() == first.Addr().Is4() {
				continue
			}
			value := side.single
			if value == "" {
				value = p.String()
			}
			v.fail(raw, CodeMixedAddressFamilies, field, value,
				"%s contains IP addresses or prefixes that belong to different address families. A rule's addresses are all IPv4 or all IPv6, and %s is not of the family of %s.",
				raw.identity(), p, first)
			return
		}
	}
}
