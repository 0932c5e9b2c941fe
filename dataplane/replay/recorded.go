package replay

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
)

// Recorded is what the comment of a captured packet says of it: words of the form name=value,
// verdict=Allow or verdict=Deny, reason=, nsg=, rule=, and for a superpacket segments=, the packets on a wire
// that it stands for. Values with spaces are quoted as in Go; other words are of no account.
type Recorded struct {
	Verdict              string `json:"verdict,omitempty"`
	Reason               string `json:"reason,omitempty"`
	NetworkSecurityGroup string `json:"networkSecurityGroup,omitempty"`
	Rule                 string `json:"rule,omitempty"`

	segments uint32
}

func recordedOf(comment []byte) (r Recorded) {
	if !bytes.ContainsRune(comment, '=') {
		return r
	}
	for rest := string(comment); rest != ""; {
		rest = strings.TrimLeft(rest, " \n\t;,")
		end := strings.IndexAny(rest, "= \n\t;,")
		if end < 0 {
			return r
		}
		name := rest[:end]
		if rest[end] != '=' {
			rest = rest[end:]
			continue
		}
		rest = rest[end+1:]
		value, err := strconv.QuotedPrefix(rest)
		if err == nil {
			rest = rest[len(value):]
			value, _ = strconv.Unquote(value)
		} else {
			stop := strings.IndexAny(rest, " \n\t;,")
			if stop < 0 {
				stop = len(rest)
			}
			value, rest = rest[:stop], rest[stop:]
		}
		r.set(strings.ToLower(name), value)
	}
	return r
}

func (r *Recorded) set(name, value string) {
	switch name {
	case "verdict":
		r.Verdict = value
	case "reason":
		r.Reason = value
	case "nsg":
		r.NetworkSecurityGroup = value
	case "rule":
		r.Rule = value
	case "segments":
		n, _ := strconv.ParseUint(value, 10, 16)
		r.segments = uint32(n)
	}
}

// differs compares the packet's verdict with the one that was recorded, if one was, and
// counts. Carried or not is compared, and why not where the comment tells.
func (r *Replay) differs(p *pcap.Packet, skip Skip) bool {
	recorded := recordedOf(p.Comment)
	if recorded.Verdict == "" || skip != NotSkipped || r.carried.Waits {
		return false
	}
	r.seen.compared++
	carried := r.carried.Drop == packet.NotDropped
	let := strings.EqualFold(recorded.Verdict, Allow)
	switch recorded.Reason {
	case packet.DropTransmit.String(), packet.DropSlowReceiver.String(): // behind all that is judged
		let = true
	}
	same := let == carried
	if same && !carried && recorded.Reason != "" {
		same = recorded.Reason == r.carried.Drop.String()
	}
	if !same {
		r.seen.different++
	}
	return !same
}
