package flowlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack"
)

// wal is the write-ahead log of the rows that no file has yet, in a slab. The next process makes the same records of it.
//
// An entry holds the rows that a flow gets at a time, and what the flow's note and the ring of ended flows say
// afterwards. It counts once the log's length includes it, and note and ring change after that. A later entry says that the
// rows gathered at a place became a block. Of two halves one is in use. The other is used next, from its beginning,
// once no block of it waits.
//
// The Recorder's mutex guards a wal, except for done.
type wal struct {
	head   *walHead
	halves [2][]byte
	waits  [2]atomic.Int64 // deliveries of a half's blocks that are not done
	left   uint64          // rows that found no room since the last change of halves
	entry  []byte          // that is being made
}

// walHead is the beginning of a log's slab.
type walHead struct {
	magic   [8]byte
	layout  walLayout
	half    atomic.Uint32 // the one in use
	walks   atomic.Uint32 // number of the last walk
	length  [2]atomic.Uint64
	applied [2]atomic.Uint64 // length up to which notes and ring follow the entries
}

// walLayout differs between versions that do not understand each other's slabs.
type walLayout struct{ note, ended uint64 }

var walLayoutNow = walLayout{uint64(NotesPerFlow), uint64(unsafe.Sizeof(conntrack.FlowInfo{}))}

const (
	walMagic = "nsgdrow1"
	walHeads = 4096
	// walSize is the slab's size. The kernel backs what is written.
	walSize = walHeads + 2*walHalf
	walHalf = 64 << 20

	entryAlign = 8
	// Every entry begins with its size (4 bytes) and its kind.
	entryHead = 8
	rowsHead  = entryHead + 16 + NotesPerFlow // flow, position in the ring, note
	rowHead   = 8                             // end, version, whether it is a denied packet's, length of the text
	blockSize = 32
	blockDone = 16 // where a byte for each kind of sink says that the block is done

	kindRows  = 1 // byte 5: number of rows
	kindBlock = 2
	kindVoid  = 3

	noFlow = ^conntrack.Flow(0)
)

// The kinds of sinks that a block can have, one of each.
const (
	sinkFolder = iota
	sinkPrinter
	sinkKinds
)

// walRow is a row in a group, for an entry.
type walRow struct {
	group    *group
	end      uint32
	version  Version
	denied   bool
	from, to int // in group.tuples
}

var errWALDamaged = errors.New("the log of rows is damaged")

// openWAL opens the log of the last process.
func openWAL(memory []byte) (*wal, error) {
	if len(memory) != walSize {
		return nil, fmt.Errorf("a log of rows of %d bytes: must be %d", len(memory), walSize)
	}
	w := newWAL(memory)
	switch h := w.head; {
	case string(h.magic[:]) != walMagic || h.layout != walLayoutNow:
		return nil, fmt.Errorf("a log of rows begins with %q and has notes of %v bytes: must be %q and %v", h.magic[:], h.layout, walMagic, walLayoutNow)
	case h.half.Load() > 1 || h.length[0].Load() > walHalf || h.length[1].Load() > walHalf:
		return nil, errWALDamaged
	}
	return w, nil
}

// newWAL makes a log of a slab of zeros; begin makes it one that the next process opens.
func newWAL(memory []byte) *wal {
	return &wal{head: (*walHead)(unsafe.Pointer(&memory[0])), halves: [2][]byte{memory[walHeads:][:walHalf], memory[walHeads+walHalf:][:walHalf]}}
}

func (w *wal) begin() {
	w.head.layout = walLayoutNow
	copy(w.head.magic[:], walMagic)
}

// append adds the entry that is being made, unless that leaves less room than a reserve. It returns where it is.
func (w *wal) append(reserve int) (at int, ok bool) {
	for len(w.entry)%entryAlign != 0 {
		w.entry = append(w.entry, 0)
	}
	binary.LittleEndian.PutUint32(w.entry, uint32(len(w.entry)))
	half := w.head.half.Load()
	length := w.head.length[half].Load()
	if length+uint64(len(w.entry)+reserve) > walHalf {
		return 0, false
	}
	copy(w.halves[half][length:], w.entry)
	w.head.length[half].Store(length + uint64(len(w.entry)))
	return int(length), true
}

// addRows enters rows with the note that their flow then has, and the position in the ring of ended flows; 0: that
// does not change. It keeps room for the blocks of all places. It is false without room.
func (w *wal) addRows(n conntrack.Flow, f *flow, position uint64, rows []walRow, places int) bool {
	e := append(w.entry[:0], 0, 0, 0, 0, kindRows, byte(len(rows)), 0, 0)
	e = binary.LittleEndian.AppendUint64(e, uint64(n))
	e = binary.LittleEndian.AppendUint64(e, position)
	e = append(e, unsafe.Slice((*byte)(unsafe.Pointer(f)), NotesPerFlow)...)
	for i := range rows {
		r := &rows[i]
		denied := byte(0)
		if r.denied {
			denied = 1
		}
		e = append(binary.LittleEndian.AppendUint32(e, r.end), byte(r.version), denied)
		e = binary.LittleEndian.AppendUint16(e, uint16(r.to-r.from))
		e = append(e, r.group.tuples[r.from:r.to]...)
	}
	w.entry = e
	if _, ok := w.append(places * blockSize); !ok {
		w.left += uint64(len(rows))
		return false
	}
	for i := range rows {
		rows[i].group.place.logged = true
	}
	return true
}

// apply says that note and ring follow all entries.
func (w *wal) apply() {
	half := w.head.half.Load()
	w.head.applied[half].Store(w.head.length[half].Load())
}

// addBlock enters that the rows at a place became a block, before any sink has it.
func (w *wal) addBlock(b *block, p *place, time int64) {
	if !p.logged {
		return
	}
	p.logged = false
	e := append(w.entry[:0], 0, 0, 0, 0, kindBlock, byte(p.log.Version), 0, 0)
	e = binary.LittleEndian.AppendUint32(e, p.end)
	e = binary.LittleEndian.AppendUint32(e, uint32(len(b.record)))
	e = append(e, make([]byte, 8)...) // blockDone
	w.entry = binary.LittleEndian.AppendUint64(e, uint64(time))
	if at, ok := w.append(0); ok { // addRows has kept the room
		half := w.head.half.Load()
		b.logged(w, half, w.halves[half][at+blockDone:][:sinkKinds])
		w.waits[half].Add(int64(len(p.log.sinks)))
	}
}

// logged says where the log has a block.
func (b *block) logged(w *wal, half uint32, done []byte) { b.wal, b.half, b.done = w, half, done }

// finished enters that a kind of sink is done with a block. Safe for concurrent use by sinks of different kinds.
func (b *block) finished(kind int) {
	if b.wal != nil {
		b.done[kind] = 1
		b.wal.waits[b.half].Add(-1)
	}
}

// turn uses the other half, if no block of it waits. Call it when no row is without a block. It returns how many rows
// had found no room.
func (w *wal) turn() (left uint64) {
	half := w.head.half.Load()
	if w.head.length[half].Load() == 0 || w.waits[1-half].Load() > 0 {
		return 0
	}
	w.head.length[1-half].Store(0)
	w.head.applied[1-half].Store(0)
	w.head.half.Store(1 - half)
	left, w.left = w.left, 0
	return left
}

// each yields the entries of a half.
func (w *wal) each(half uint32, yield func(at uint64, entry []byte) error) error {
	length := w.head.length[half].Load()
	for at := uint64(0); at < length; {
		left := w.halves[half][at:length]
		if len(left) < entryHead {
			return errWALDamaged
		}
		size := uint64(binary.LittleEndian.Uint32(left))
		if size < entryHead || size%entryAlign != 0 || size > uint64(len(left)) {
			return errWALDamaged
		}
		if err := yield(at, left[:size]); err != nil {
			return err
		}
		at += size
	}
	return nil
}
