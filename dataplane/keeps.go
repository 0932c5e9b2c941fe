package dataplane

import (
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// keepsTranslation reports whether a policy still has the translation of a flow whose ends are
// where they were.
func keepsTranslation(s *topology.Snapshot, f *conntrack.FlowInfo) bool {
	src := s.Admit(s.Attachments[f.Key.Zone], f.Key.Src)
	to := s.Admit(s.Attachments[f.ReplyKey.Zone], f.Receiver)
	arrives := f.ReplyKey.Reverse()
	return s.Keeps(src, to, &f.Key.Tuple, &arrives)
}
