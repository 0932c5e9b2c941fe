package flowlog

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// The containers that Azure keeps flow logs in, and the record file of an hour.
const (
	nsgContainer  = "insights-logs-networksecuritygroupflowevent"
	vnetContainer = "insights-logs-flowlogflowevent"
	hourFile      = "PT1H.json"
)

// The defaults where a document names none. nsgd deploys templates with them too.
const (
	noSubscription  = "00000000-0000-0000-0000-000000000000"
	noResourceGroup = "NSGD"
	noLocation      = "westeurope"
)

// macOf is a MAC address in the form of flow logs, 12 digits. Documents often lack it, and an
// address without a network interface always does. Then it is made from the id of the network
// interface or subnet, with the bit of locally administered addresses.
func macOf(written, id string) string {
	digits := strings.ToUpper(strings.NewReplacer("-", "", ":", "", ".", "").Replace(written))
	if b, err := hex.DecodeString(digits); err == nil && len(b) == 6 {
		return digits
	}
	sum := sha256.Sum256([]byte(strings.ToLower(id)))
	return strings.ToUpper("02" + hex.EncodeToString(sum[:5]))
}

// guidOf is the GUID of a resource where only Azure knows the real one. It is always the same for
// an id, and of RFC 9562's version 8 for custom GUIDs.
func guidOf(id string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(id)))
	b := sum[:16]
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// resource is the parts of a resource id that flow logs name.
type resource struct{ subscription, group, name string }

// resourceOf reads an id of the form /subscriptions/S/resourceGroups/R/providers/... It takes the
// defaults for parts that the id lacks.
func resourceOf(id string) resource {
	r := resource{noSubscription, noResourceGroup, id[strings.LastIndexByte(id, '/')+1:]}
	segments := strings.Split(id, "/")
	for i := 0; i+1 < len(segments); i++ {
		value := segments[i+1]
		switch {
		case value == "":
		case strings.EqualFold(segments[i], "subscriptions") && i == 1:
			r.subscription = value
		case strings.EqualFold(segments[i], "resourceGroups") && i == 3:
			r.group = value
		}
	}
	return r
}

// upperID is an id in the form of flow logs, in capitals.
func upperID(id string) string {
	r := resourceOf(id)
	id = strings.Replace(id, "/subscriptions//resourceGroups//", "/subscriptions/"+r.subscription+"/resourceGroups/"+r.group+"/", 1)
	return strings.ToUpper(id)
}

// maxSegment is the longest file name, in bytes.
const maxSegment = 255

// pathOf makes a path from an id. Ids come from documents, so the path must stay below the folder.
func pathOf(id string) string {
	segments := strings.Split(strings.Trim(id, "/"), "/")
	for i, s := range segments {
		s = strings.Map(func(c rune) rune {
			if c < ' ' || c == '\\' || c == 0x7f {
				return '_'
			}
			return c
		}, s)
		if strings.Trim(s, ".") == "" || len(s) > maxSegment {
			s = "_" + guidOf(s)
		}
		segments[i] = s
	}
	return strings.Join(segments, "/")
}

// nsgFolder and vnetFolder are the paths of a flow log's files up to the year.
func nsgFolder(id string) string { return nsgContainer + "/resourceId=/" + pathOf(upperID(id)) }

func vnetFolder(log resource, location string) string {
	return vnetContainer + "/flowLogResourceID=/" + pathOf(strings.ToUpper(log.subscription+"_NETWORKWATCHERRG/NETWORKWATCHER_"+location+"_"+log.name))
}

// flowLogOf is the flow log of a virtual network, subnet or network interface. One without a name is
// named as Azure's portal does it.
func flowLogOf(target, name string) resource {
	r := resourceOf(target)
	r.name = strings.ToUpper(cmp.Or(name, r.name+"-"+r.group+"-flowlogs"))
	return r
}

// flowLogID is the id of that flow log.
func flowLogID(log resource, location string) string {
	return strings.ToUpper("/subscriptions/" + log.subscription + "/resourceGroups/NetworkWatcherRG/providers/Microsoft.Network/networkWatchers/NetworkWatcher_" +
		location + "/flowLogs/" + log.name)
}

// hourPath is the part of a path that all files of an hour share.
func hourPath(t time.Time) string { return t.UTC().Format("y=2006/m=01/d=02/h=15/m=00") }
