package ruleset

import (
	"slices"
	"strconv"
	"strings"
)

// ports checks one side's ports. A list with "*" among other ports is a fault here;
// Azure's answer to it is not recorded.
func (v *validator) ports(r *SecurityRule, f *sideFields, s *Side) []PortRange {
	if r.anyUnknown(f.portRange, f.portRanges) {
		return nil
	}
	field, texts := f.portRanges, s.PortRanges
	switch {
	case s.PortRange != "" && len(texts) > 0:
		v.fail(r, CodeInvalidCombination, f.portRange, s.PortRange,
			"Allowed is %s or %s, not both.", f.portRange, f.portRanges)
		v.portList(r, f.portRanges, texts)
		fallthrough
	case s.PortRange != "":
		field, texts = f.portRange, []string{s.PortRange}
	case len(texts) == 0:
		v.fail(r, CodeParametersMissing, f.portRange, "",
			"Security rule has no %s. One of %s and %s is needed; %q stands for every port.", title(f.portRange), f.portRange, f.portRanges, "*")
	}
	return v.portList(r, field, texts)
}

func (v *validator) portList(r *SecurityRule, field string, texts []string) []PortRange {
	var ranges []PortRange
	for _, text := range texts {
		p, ok := parsePortRange(text)
		if !ok || p == AllPorts && len(texts) > 1 && strings.Contains(text, "*") {
			v.fail(r, CodeInvalidPortRange, field, text,
				"Security rule has invalid Port range. Value provided: %s. Value should be an integer OR integer range with '-' delimiter. Valid range 0-65535.", Clip(text))
			continue
		}
		ranges = append(ranges, p)
	}
	return ranges
}

// parsePortRange reads "80", "80-90" or "*". It allows spaces around the text, because
// published templates that Azure deploys have them.
func parsePortRange(text string) (PortRange, bool) {
	text = strings.Trim(text, " ")
	if text == "*" {
		return AllPorts, true
	}
	low, high, isRange := strings.Cut(text, "-")
	first, ok := parsePort(low)
	if !isRange {
		return PortRange{first, first}, ok
	}
	last, okLast := parsePort(high)
	return PortRange{first, last}, ok && okLast && first <= last
}

func parsePort(text string) (uint16, bool) {
	for i := range len(text) {
		if !isDigit(text[i]) { // ParseUint accepts a sign
			return 0, false
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil
}

// JoinPorts are the ports of ranges as ascending ranges that do not touch.
func JoinPorts(ranges []PortRange) []PortRange {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var list []PortRange
	for _, r := range sorted {
		if n := len(list); n > 0 && int(r.First) <= int(list[n-1].Last)+1 {
			list[n-1].Last = max(list[n-1].Last, r.Last)
			continue
		}
		list = append(list, r)
	}
	return list
}
