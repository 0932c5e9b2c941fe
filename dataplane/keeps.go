package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// translates reports whether a packet from an attachment would be translated, or go to
// somebody else than its addresses name.
func translates(s *topology.Snapshot, from int, t *packet.Tuple) bool {
	var way topology.Way
	src := s.Admit(s.Attachments[from], t.Src)
	return src == nil || ofTranslation(s.Way(src, t, &way)) || way.Translated || way.Floating
}

// keepsTranslation reports whether a policy still has the translation of a flow whose ends are
// where they were.
func keepsTranslation(s *topology.Snapshot, f *conntrack.FlowInfo) bool {
	src := s.Admit(s.Attachments[f.Key.Zone], f.Key.Src)
	to := s.Admit(s.Attachments[f.ReplyKey.Zone], f.Receiver)
	arrives := f.ReplyKey.Reverse()
	return s.Keeps(src, to, &f.Key.Tuple, &arrives)
}
