package control

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/pcapng"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// capture writes pcapng: an interface for each attachment, and each packet once, as it came in from
// one. A superpacket stays one.
func (s *Server) capture(w http.ResponseWriter, r *http.Request) {
	snap := func(q *WatchRequest) int {
		if q.SnapLen == 0 || q.SnapLen > watch.MaxSnap {
			return watch.MaxSnap
		}
		return q.SnapLen
	}
	s.stream(w, r, "application/x-pcapng", snap, func(st *stream) (encoder, error) {
		snapLen := st.request.SnapLen
		if snapLen == 0 {
			snapLen = MaxSnapLen
		}
		file, err := pcapng.NewWriter(st.out, "nsgd "+s.service.options.Version, snapLen, s.service.interfaces())
		return capturedPackets{st.namer, file}, err
	})
}

// interfaces are the attachments, with where their devices are.
func (s *Service) interfaces() (list []pcapng.Interface) {
	for i, a := range s.options.Engine.Snapshot().Attachments {
		described := []string{a.Kind.String()}
		if a.Name != a.Kind.String() {
			described = append(described, a.Name)
		}
		if i < len(s.options.Places) {
			place := &s.options.Places[i]
			described = append(described, "on", place.Device)
			if place.Namespace != "" {
				described = append(described, "in network namespace", place.Namespace)
			}
		}
		list = append(list, pcapng.Interface{Name: a.Name, Description: strings.Join(described, " ")})
	}
	return list
}

type capturedPackets struct {
	namer *dataplane.Namer
	file  *pcapng.Writer
}

func (c capturedPackets) packet(e *watch.Event, bytes []byte) error {
	return c.file.Write(&pcapng.Packet{Interface: int(e.From), Time: time.Unix(0, e.Time), Data: bytes,
		Length: int(e.Length), Comment: comment(tracedPacket(c.namer, e))})
}

func (c capturedPackets) summary(WatchSummary) error { return nil }

// comment is what a capture says of a packet: words NAME=VALUE. nsg and rule are what has denied it,
// or the last that has allowed it; by are all that were asked, when they are several. segments are the
// packets on a wire that a superpacket stands for, arrives is SOURCE>DESTINATION as the receiver sees them,
// when they are not those in the packet. A name that would not be read as one word is quoted as in Go.
func comment(p *TracedPacket) string {
	words := []string{"verdict=" + p.Access}
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+"="+word(value))
		}
	}
	if n := len(p.Stages); n > 0 {
		add("nsg", p.Stages[n-1].NetworkSecurityGroup)
		add("rule", p.Stages[n-1].RuleName)
	}
	add("reason", p.Reason)
	add("flow", p.Flow)
	add("direction", p.Direction)
	add("service", p.PlatformService)
	add("to", p.To)
	if p.Segments > 1 {
		add("segments", strconv.FormatUint(uint64(p.Segments), 10))
	}
	if p.Arrives != nil {
		add("arrives", p.Arrives.String())
	}
	if len(p.Stages) > 1 {
		words = append(words, "by="+strings.Join(stageNames(p.Stages), ","))
	}
	return strings.Join(words, " ")
}

// word is a value as it stands in a comment: names come from documents, and must not end where others
// begin.
func word(value string) string {
	if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) || strings.ContainsRune(" ,;=\"'`\\", r) }) {
		return strconv.Quote(value)
	}
	return value
}

func stageNames(stages []azure.VerificationStage) (names []string) {
	for _, s := range stages {
		names = append(names, word(s.NetworkSecurityGroup+"/"+s.RuleName))
	}
	return names
}
