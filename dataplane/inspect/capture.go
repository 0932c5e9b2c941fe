package inspect

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// Capture writes packets as pcapng, until the stream's count or until ctx ends. There is an
// interface for each attachment, that of a later one before its first packet. Each packet is written once, as it came in from one; a superpacket
// stays one. Capture calls flush before it waits for more.
func (s *Stream) Capture(ctx context.Context, w io.Writer, flush func() error) error {
	snapLen := s.request.SnapLen
	if snapLen == 0 {
		snapLen = MaxSnapLen
	}
	file, err := pcap.NewWriter(w, "nsgd "+s.service.options.Version, snapLen, nil)
	if err != nil {
		return err
	}
	interfaces := map[string]int{}
	for _, a := range s.service.interfaces() {
		interfaces[a.Name] = len(interfaces)
		if err := file.AddInterface(a); err != nil {
			return err
		}
	}
	return s.run(ctx, sink{
		packet: func(e *watch.Event, data []byte) error {
			if s.request.Headers {
				data = data[:min(len(data), headersOf(e))]
			}
			name := s.namer.attachment(e.From, e)
			on, known := interfaces[name]
			if !known { // it was attached since
				on = len(interfaces)
				interfaces[name] = on
				if err := file.AddInterface(pcap.Interface{Name: name}); err != nil {
					return err
				}
			}
			return file.Write(on, &pcap.Packet{Time: time.Unix(0, e.Time), Data: data, Length: int(e.Length),
				Comment: []byte(comment(s.namer.describe(e)))})
		},
		summary: func(WatchSummary) error { return nil },
		flush:   flush,
	})
}

// headersOf is where the payload of a packet begins. Of a later fragment, and of what is not understood, nothing but the
// least IP header is known to be none.
func headersOf(e *watch.Event) int {
	const least = 20
	if p := &e.Packet; p.PayloadOffset > 0 && !p.Fragment.IsLater() {
		return int(p.PayloadOffset)
	}
	return least
}

// interfaces are the attachments, with the places of their devices.
func (s *Service) interfaces() (list []pcap.Interface) {
	for i, a := range s.options.Engine.Snapshot().Attachments {
		if a.Kind == topology.Vacant {
			continue
		}
		described := []string{a.Kind.String()}
		if a.Name != a.Kind.String() {
			described = append(described, a.Name)
		}
		if place := s.place(i); place.Device != "" {
			described = append(described, "on", place.Device)
			if place.Namespace != "" {
				described = append(described, "in network namespace", place.Namespace)
			}
		}
		list = append(list, pcap.Interface{Name: a.Name, Description: strings.Join(described, " ")})
	}
	return list
}

// comment is what a capture says of a packet: words of the form NAME=VALUE. nsg and rule are
// the rule that denied it, or the last that allowed it. by lists all rules that were asked, when
// there are several. segments counts the packets on a wire that a superpacket stands for. arrives
// is SOURCE>DESTINATION as the receiver sees them, when something is translated. A value that
// would not read as one word is quoted as in Go.
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

// word is a value as it stands in a comment. Names come from documents: none may look like the
// end of its word.
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
