package flowlog

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack/slab"
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
