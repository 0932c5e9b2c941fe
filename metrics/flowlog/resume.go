package flowlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/slab"
)

// NotesPerFlow is what conntrack.Options.NotesPerFlow has to be where Options.Slabs is set.
const NotesPerFlow = int(unsafe.Sizeof(flow{}))

const (
	// The names of the slabs: the write-ahead log, the ring of ended flows, and what the numbers of flow ends mean.
	slabRows, slabEnded, slabEnds = "log.rows", "log.ended", "log.ends"
	// endsSize is for a quarter of a million ends of flows. The kernel backs what is written.
	endsSize = 512 << 20
	// sweptEnds is from how many ends on a process forgets those that no flow has.
	sweptEnds = 1 << 10
)

// Forget drops what an earlier process has left for flow logs, when there are none any more.
func Forget(slabs *slab.Slabs) error {
	if slabs == nil {
		return nil
	}
	for _, name := range []string{slabRows, slabEnded, slabEnds} {
		if err := slabs.Drop(name); err != nil {
			return err
		}
	}
	return nil
}

// keep has everything outlive the process, and goes on with what the last one has left.
func (r *Recorder) keep() error {
	notes := r.options.Engine.Flows().Notes()
	if len(notes) != len(r.flows)*NotesPerFlow {
		return fmt.Errorf("flow logs: the flow table has %d bytes of notes: must be %d", len(notes), len(r.flows)*NotesPerFlow)
	}
	r.flows = unsafe.Slice((*flow)(unsafe.Pointer(&notes[0])), len(r.flows))
	found, err := r.reopen()
	if err == nil && found {
		err = r.resume()
	}
	if err == nil && found {
		return nil
	}
	if err != nil {
		r.log.Error("flow logs: what the last process has left is dropped: its rows that no file has are lost, and its flows begin again", "error", err)
	}
	if err != nil || r.options.Engine.Flows().Adoption().Flows > 0 {
		clear(r.flows)
	}
	if err != nil { // what was damaged has brought something into the router
		r.router = newRouter(r.options.Engine, r.logs, r.failed)
		r.gathered, r.walked = 0, 0
	}
	return r.keepAnew()
}

// reopen opens the slabs of the last process. found is false if it has left none.
func (r *Recorder) reopen() (found bool, err error) {
	var memory [3][]byte
	for i, name := range []string{slabRows, slabEnded, slabEnds} {
		if memory[i], err = r.options.Slabs.Find(name); err != nil {
			return true, err
		}
	}
	if memory[0] == nil {
		return false, nil
	}
	if r.wal, err = openWAL(memory[0]); err != nil {
		return true, err
	}
	if r.ring, err = openRing(memory[1]); err != nil {
		return true, err
	}
	if memory[2] == nil {
		return true, fmt.Errorf("the slab %s is missing", slabEnds)
	}
	r.router.kept, err = slab.NewJournal(memory[2])
	return true, err
}

// keepAnew makes the slabs. The log comes last: whoever finds it finds all.
func (r *Recorder) keepAnew() error {
	if err := Forget(r.options.Slabs); err != nil {
		return err
	}
	memory, err := r.options.Slabs.Make(slabEnds, endsSize)
	if err != nil {
		return err
	}
	if r.router.kept, err = slab.NewJournal(memory); err != nil {
		return err
	}
	if memory, err = r.options.Slabs.Make(slabEnded, ringSize); err != nil {
		return err
	}
	r.ring = ringOf(memory)
	if memory, err = r.options.Slabs.Make(slabRows, walSize); err != nil {
		return err
	}
	r.wal = newWAL(memory)
	r.wal.begin()
	return nil
}

// resume gathers the rows again that no file has, and makes notes and ring follow the last entry.
func (r *Recorder) resume() error {
	if err := r.router.resume(); err != nil {
		return err
	}
	adoption := r.options.Engine.Flows().Adoption()
	copied := adoption.Copied || adoption.Refused != nil
	r.walked = r.wal.head.walks.Load()
	var blocks []*block
	half := r.wal.head.half.Load()
	for _, h := range []uint32{1 - half, half} {
		err := r.wal.each(h, func(at uint64, entry []byte) error {
			switch entry[4] {
			case kindVoid:
				return nil
			case kindRows:
				return r.resumeRows(entry, at >= r.wal.head.applied[h].Load(), copied)
			case kindBlock:
				b, err := r.resumeBlock(h, entry)
				if b != nil {
					blocks = append(blocks, b)
				}
				return err
			}
			return errWALDamaged
		})
		if err != nil {
			return err
		}
	}
	r.wal.apply()
	if copied { // the notes of ended flows are not where they were
		r.ring.drop()
	}
	if len(r.router.ends) > sweptEnds {
		r.sweepEnds()
	}
	for _, b := range blocks {
		for _, s := range b.log.sinks {
			if b.done[s.kind] == 0 {
				s.put(b)
			}
		}
	}
	return nil
}

// resumeRows gathers an entry's rows again. If the last process was killed before note and ring followed the entry, they
// do it now. Where the flows were copied, the note is elsewhere: then the entry was never made.
func (r *Recorder) resumeRows(entry []byte, open, copied bool) error {
	if len(entry) < rowsHead {
		return errWALDamaged
	}
	if open && copied {
		entry[4] = kindVoid
		return nil
	}
	number := binary.LittleEndian.Uint64(entry[entryHead:])
	if position := binary.LittleEndian.Uint64(entry[entryHead+8:]); position > r.ring.head.Load() {
		if position > r.ring.tail.Load() {
			return errWALDamaged
		}
		r.ring.head.Store(position)
	}
	if open && number != uint64(noFlow) {
		if number >= uint64(len(r.flows)) {
			return errWALDamaged
		}
		copy(unsafe.Slice((*byte)(unsafe.Pointer(&r.flows[number])), NotesPerFlow), entry[entryHead+16:])
	}
	rest := entry[rowsHead:]
	for range entry[5] {
		if len(rest) < rowHead {
			return errWALDamaged
		}
		size := int(binary.LittleEndian.Uint16(rest[6:]))
		if len(rest) < rowHead+size || rest[4] >= byte(numVersions) {
			return errWALDamaged
		}
		if g := r.router.groupAt(binary.LittleEndian.Uint32(rest), Version(rest[4])); g != nil {
			r.gathered += g.append(rest[rowHead:rowHead+size], rest[5] == 1)
		}
		rest = rest[rowHead+size:]
	}
	return nil
}

// resumeBlock makes the block again that the last process had made of a place's rows. It is nil if all sinks are done
// with it.
func (r *Recorder) resumeBlock(half uint32, entry []byte) (*block, error) {
	if len(entry) != blockSize || entry[5] >= byte(numVersions) {
		return nil, errWALDamaged
	}
	g := r.router.groupAt(binary.LittleEndian.Uint32(entry[8:]), Version(entry[5]))
	if g == nil || len(g.place.busy) == 0 {
		return nil, nil
	}
	at := time.Unix(0, int64(binary.LittleEndian.Uint64(entry[24:])))
	r.gathered -= g.place.gathered()
	b := g.place.record(at)
	r.recorded = at
	b.recovered, b.length = true, int(binary.LittleEndian.Uint32(entry[12:]))
	b.logged(r.wal, half, entry[blockDone:][:sinkKinds])
	waits := false
	for _, s := range b.log.sinks {
		if b.done[s.kind] == 0 {
			waits = true
			r.wal.waits[half].Add(1)
		}
	}
	if !waits {
		return nil, nil
	}
	return b, nil
}

// sweepEnds forgets the ends that no flow has and that the log does not name.
func (r *Recorder) sweepEnds() {
	used := make([]bool, len(r.router.ends))
	use := func(n uint32) {
		if int(n) < len(used) {
			used[n] = true
		}
	}
	use(0)
	for i := range r.flows {
		use(r.flows[i].ends[0])
		use(r.flows[i].ends[1])
	}
	for half := range uint32(2) {
		r.wal.each(half, func(_ uint64, entry []byte) error { // resume has read all of it
			if entry[4] == kindBlock {
				use(binary.LittleEndian.Uint32(entry[8:]))
			}
			if entry[4] == kindRows {
				rest := entry[rowsHead:]
				for range entry[5] {
					use(binary.LittleEndian.Uint32(rest))
					rest = rest[rowHead+int(binary.LittleEndian.Uint16(rest[6:])):]
				}
			}
			return nil
		})
	}
	r.router.sweep(used)
}

// keptEnd is a flow end as the next process reads it.
type keptEnd struct {
	Outbound bool
	Groups   [numVersions]*keptGroup
}

// keptGroup says which log it is in by what the log covers.
type keptGroup struct {
	Target                       string
	FromPolicy                   bool
	Folder, MAC, Head, ACL, Rule string
}

// keptRule is the rule of a slot as the next process reads it.
type keptRule struct {
	NSG, GUID, Name string
	Direction       ruleset.Direction
	Access          ruleset.Access
	Admin           bool
}

const endKeys, ruleKeys = "end ", "rule "

// put has the journal keep a value under a kind of keys and a number.
func (t *router) put(keys string, n uint32, value any) {
	text, err := json.Marshal(value)
	if err == nil {
		err = t.kept.Put(keys+strconv.Itoa(int(n)), text)
	}
	if err != nil {
		t.failed(fmt.Errorf("the next process can't be told where rows of its flows go: %w", err))
	}
}

// keepRule has the journal say what a slot means: flows that have no row yet may outlive their rule.
func (t *router) keepRule(slot uint32, r *rule) {
	if t.kept != nil {
		t.put(ruleKeys, slot, keptRule{r.nsg, r.guid, r.name, r.direction, r.access, r.admin})
	}
}

// resumeRule takes up the rule that a slot had in the last process.
func (t *router) resumeRule(slot uint64, text []byte) error {
	var k keptRule
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if slot >= topology.MaxRules {
		return fmt.Errorf("slot %d: must be below %d", slot, topology.MaxRules)
	}
	for int(slot) >= len(t.rules) {
		t.rules = append(t.rules, nil)
	}
	t.rules[slot] = []*rule{{nsg: k.NSG, guid: k.GUID, name: k.Name, direction: k.Direction, access: k.Access, admin: k.Admin}}
	return nil
}

// keep has the journal say what a number means, before anything is told under it.
func (t *router) keep(n uint32, e *flowEnd) {
	if t.kept == nil {
		return
	}
	k := keptEnd{Outbound: e.outbound}
	for v, g := range e.groups {
		if g == nil {
			continue
		}
		p := g.place
		k.Groups[v] = &keptGroup{Target: p.log.Target, FromPolicy: p.log.FromPolicy, Folder: p.folder, MAC: p.mac, Head: p.head, ACL: g.acl, Rule: g.rule}
		if p.end == 0 {
			p.end = n
		}
	}
	t.put(endKeys, n, &k)
}

// resume takes up the rules, and the ends of flows that earlier processes have numbered.
func (t *router) resume() error {
	values, err := t.kept.Values()
	if err != nil {
		return err
	}
	for key, text := range values {
		kind, number, _ := strings.Cut(key, " ")
		n, err := strconv.ParseUint(number, 10, 22)
		switch {
		case err != nil:
		case kind+" " == ruleKeys:
			err = t.resumeRule(n, text)
		default:
			err = t.resumeEnd(uint32(n), text)
		}
		if err != nil {
			return fmt.Errorf("the journal's %q: %.100q: %w", key, text, err)
		}
	}
	return nil
}

// resumeEnd takes up a flow's end. Where its log is none any more, its rows go nowhere.
func (t *router) resumeEnd(n uint32, text []byte) error {
	var k keptEnd
	if err := json.Unmarshal(text, &k); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("no end has number 0")
	}
	for int(n) >= len(t.ends) {
		t.ends = append(t.ends, flowEnd{})
	}
	e := flowEnd{outbound: k.Outbound}
	for v, g := range k.Groups {
		if g == nil {
			continue
		}
		if l := t.logAs(Version(v), g); l != nil {
			p := t.placeOf(l, g.Folder, g.MAC, func(string) string { return g.Head })
			if p.end == 0 {
				p.end = n
			}
			e.groups[v] = t.groupOf(p, g.ACL, g.Rule)
		}
	}
	if t.ends[n] = e; e.groups != [numVersions]*group{} {
		t.known[e] = n
	}
	return nil
}

// logAs is the log that covers what the log of another process did; nil: there is none any more.
func (t *router) logAs(v Version, g *keptGroup) *flowLog {
	i := slices.IndexFunc(t.logs, func(l *flowLog) bool {
		return l.Version == v && l.FromPolicy == g.FromPolicy && strings.EqualFold(l.Target, g.Target)
	})
	if i < 0 {
		return nil
	}
	return t.logs[i]
}

// groupAt is where an end's rows of a version gather; nil: nowhere.
func (t *router) groupAt(end uint32, v Version) *group {
	if int(end) >= len(t.ends) {
		return nil
	}
	return t.ends[end].groups[v]
}

// sweep gives back the numbers of ends that are not in use.
func (t *router) sweep(used []bool) {
	for _, p := range t.places {
		if p.end != 0 && !used[p.end] {
			p.end = 0
		}
	}
	for n, in := range used {
		e := t.ends[n]
		if !in {
			if t.known[e] == uint32(n) {
				delete(t.known, e)
			}
			t.ends[n] = flowEnd{}
			t.free = append(t.free, uint32(n))
			if err := t.kept.Delete(endKeys + strconv.Itoa(n)); err != nil {
				t.failed(err)
			}
			continue
		}
		for _, g := range e.groups {
			if g != nil && g.place.end == 0 {
				g.place.end = uint32(n)
			}
		}
	}
}
