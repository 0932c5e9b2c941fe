package flowlog

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// place is where one flow log keeps the rows of one MAC address: a file an hour.
type place struct {
	log         *flowLog
	folder, mac string // the path is the folder, the hour and the MAC address
	head        string // of a record, behind its time
	busy        []*group
	end         uint32 // an end that gathers here, for the write-ahead log; 0: none yet
	logged      bool   // the write-ahead log has rows that gather here
}

// share is what the rows of one NSG's denied packets take up of a flow log.
type share struct{ denied int } // bytes in this interval

// group gathers the rows of one rule in a place.
type group struct {
	place     *place
	share     *share
	acl, rule string // GUID of the rule's NSG, for version 4; name of the rule
	tuples    []byte // JSON strings with commas between
	denied    int    // bytes of tuples that are of denied packets
	rows      uint64
}

func quoted(text string) string {
	b, _ := json.Marshal(text) // no text makes that fail
	return string(b)
}

// nsgHead and vnetHead are the heads of records. All records of a place share one.
func nsgHead(id, guid string) string {
	return `,"systemId":` + quoted(guid) + `,"category":"NetworkSecurityGroupFlowEvent","resourceId":` + quoted(upperID(id)) +
		`,"operationName":"NetworkSecurityGroupFlowEvents","properties":{"Version":2,"flows":[`
}

func vnetHead(flowLogID, target, mac string) string {
	return `,"flowLogVersion":4,"flowLogGUID":` + quoted(guidOf(flowLogID)) + `,"macAddress":` + quoted(mac) +
		`,"category":"FlowLogFlowEvent","flowLogResourceID":` + quoted(flowLogID) + `,"targetResourceID":` + quoted(target) +
		`,"operationName":"FlowLogFlowEvent","flowRecords":{"flows":[`
}

// add appends a row and returns by how many bytes the group has grown. A denied packet's row
// takes up the room that the log's sinks have for those.
func (g *group) add(r *row) int {
	before := g.begin()
	g.tuples = append(g.tuples, '"')
	if g.place.log.Version == NSG {
		g.tuples = r.appendNSG(g.tuples)
	} else {
		g.tuples = r.appendVNet(g.tuples)
	}
	g.tuples = append(g.tuples, '"')
	return g.grown(before, r.state == stateDenied)
}

// append adds the text of a row that an earlier process has made.
func (g *group) append(text []byte, denied bool) int {
	before := g.begin()
	g.tuples = append(g.tuples, text...)
	g.place.logged = true
	return g.grown(before, denied)
}

// begin makes place for a row and returns how long the group was.
func (g *group) begin() int {
	before := len(g.tuples)
	if g.rows == 0 {
		g.place.busy = append(g.place.busy, g)
	} else {
		g.tuples = append(g.tuples, ',')
	}
	g.rows++
	return before
}

// grown counts the row that was added, and returns its length with the comma before it.
func (g *group) grown(before int, denied bool) int {
	grown := len(g.tuples) - before
	if denied {
		g.denied += grown
		g.share.denied += grown
		for _, s := range g.place.log.sinks {
			s.deniedRoom -= grown
		}
	}
	return grown
}

// gathered is how many bytes of rows have no record yet.
func (p *place) gathered() (bytes int) {
	for _, g := range p.busy {
		bytes += len(g.tuples)
	}
	return bytes
}

// keptCapacity bounds the memory that a group keeps for its next rows.
const keptCapacity = 4 << 10

// record makes a record of the gathered rows and forgets them.
func (p *place) record(now time.Time) *block {
	slices.SortFunc(p.busy, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.acl, b.acl), cmp.Compare(a.rule, b.rule))
	})
	b := &block{log: p.log, path: p.folder + "/" + hourPath(now) + "/macAddress=" + p.mac + "/" + hourFile}
	size := len(p.head) + 128
	for _, g := range p.busy {
		size += len(g.tuples) + len(g.rule) + 128
		b.rows += g.rows
		b.denied += g.denied
	}
	text := append(make([]byte, 0, size), `{"time":"`...)
	text = now.UTC().AppendFormat(text, "2006-01-02T15:04:05.0000000Z")
	text = append(append(text, '"'), p.head...)
	if p.log.Version == NSG {
		text = p.appendRules(text)
	} else {
		text = p.appendACLs(text)
	}
	b.record = append(text, "]}}"...)
	for _, g := range p.busy {
		g.rows, g.denied = 0, 0
		if g.tuples = g.tuples[:0]; cap(g.tuples) > keptCapacity {
			g.tuples = nil
		}
	}
	p.busy = p.busy[:0]
	return b
}

// appendRules adds version 2's flows: one element a rule, each with the one MAC address.
func (p *place) appendRules(text []byte) []byte {
	for i, g := range p.busy {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(text, `{"rule":`...), quoted(g.rule)...)
		text = append(append(text, `,"flows":[{"mac":`...), quoted(p.mac)...)
		text = append(append(append(text, `,"flowTuples":[`...), g.tuples...), "]}]}"...)
	}
	return text
}

// appendACLs adds version 4's flows: one element an NSG, with its rules.
func (p *place) appendACLs(text []byte) []byte {
	for i, g := range p.busy {
		switch {
		case i > 0 && g.acl == p.busy[i-1].acl:
			text = append(text, ',')
		case i > 0:
			text = append(text, "]},"...)
			fallthrough
		default:
			text = append(append(append(text, `{"aclID":`...), quoted(g.acl)...), `,"flowGroups":[`...)
		}
		text = append(append(text, `{"rule":`...), quoted(g.rule)...)
		text = append(append(append(text, `,"flowTuples":[`...), g.tuples...), "]}"...)
	}
	if len(p.busy) > 0 {
		text = append(text, "]}"...)
	}
	return text
}
