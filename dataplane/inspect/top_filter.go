package inspect

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// words are the words of a filter, in lower case.
func words(filter string) []string { return strings.Fields(strings.ToLower(filter)) }

// hasAll reports whether each word is part of one of the texts.
func hasAll(words []string, texts ...string) bool {
	for i := range texts {
		texts[i] = strings.ToLower(texts[i])
	}
	all := strings.Join(texts, "\n")
	for _, w := range words {
		if !strings.Contains(all, w) {
			return false
		}
	}
	return true
}

// flowWord is one word of a filter, compiled so that flows need no texts.
type flowWord struct {
	prefix    netip.Prefix // invalid: the word is no address
	port      int          // -1: the word is no port
	protocols [256]bool
	classes   [conntrack.NumClasses]bool
	zones     []bool // by zone
	slots     []bool // by slot of a rule
}

// flowWords compiles a filter for flows.
func flowWords(e *dataplane.Engine, s *topology.Snapshot, keys []topology.RuleKey, filter string) []flowWord {
	var list []flowWord
	for _, text := range words(filter) {
		w := flowWord{prefix: partialPrefix(text), port: -1, zones: make([]bool, len(s.Attachments)), slots: make([]bool, len(keys))}
		if n, err := strconv.ParseUint(strings.TrimPrefix(text, ":"), 10, 16); err == nil {
			w.port = int(n)
		}
		for p := range w.protocols {
			w.protocols[p] = strings.EqualFold(packet.ProtocolName(uint8(p)), text)
		}
		for c := range w.classes {
			w.classes[c] = strings.Contains(conntrack.Class(c).State(), text)
		}
		for zone := range w.zones {
			w.zones[zone] = strings.Contains(strings.ToLower(attachmentName(e, s, uint16(zone))), text)
		}
		for slot := range w.slots {
			k := &keys[slot]
			w.slots[slot] = hasAll([]string{text}, k.NetworkSecurityGroup+"/"+k.Rule)
		}
		list = append(list, w)
	}
	return list
}

// partialPrefix reads an address, its beginning or a prefix: 10.0.1. is 10.0.1.0/24 and
// fd00:1: is fd00:1::/32. The result is invalid for other text.
func partialPrefix(text string) netip.Prefix {
	if p, err := parsePrefix(text); err == nil {
		return p
	}
	for _, family := range []struct {
		separator, fill   string
		groups, groupBits int
	}{{".", ".0", 4, 8}, {":", ":0", 8, 16}} {
		n := strings.Count(text, family.separator)
		if n == 0 || n >= family.groups || strings.Contains(text, "::") {
			continue
		}
		begun := strings.TrimSuffix(text, family.separator)
		n = strings.Count(begun, family.separator) + 1
		whole, err := netip.ParseAddr(begun + strings.Repeat(family.fill, family.groups-n))
		if err == nil {
			return netip.PrefixFrom(whole, n*family.groupBits).Masked()
		}
	}
	return netip.Prefix{}
}

// matchesAll reports whether a flow has each of the words.
func matchesAll(words []flowWord, f *conntrack.FlowInfo) bool {
	for i := range words {
		if !words[i].matches(f) {
			return false
		}
	}
	return true
}

func (w *flowWord) matches(f *conntrack.FlowInfo) bool {
	k, r := &f.Key, &f.ReplyKey
	if w.prefix.IsValid() {
		return w.prefix.Contains(k.Src.Netip()) || w.prefix.Contains(k.Dst.Netip()) ||
			w.prefix.Contains(r.Src.Netip()) || w.prefix.Contains(r.Dst.Netip())
	}
	if w.port >= 0 {
		port := uint16(w.port)
		return k.SrcPort == port || k.DstPort == port || r.SrcPort == port || r.DstPort == port
	}
	if w.protocols[k.Proto] || w.classes[f.Class] || w.zone(k.Zone) || w.zone(r.Zone) {
		return true
	}
	for slots := f.Slots; slots.More(); slots = slots.Rest() {
		if slot := int(slots.First()); slot < len(w.slots) && w.slots[slot] {
			return true
		}
	}
	return false
}

func (w *flowWord) zone(zone uint16) bool { return int(zone) < len(w.zones) && w.zones[zone] }
