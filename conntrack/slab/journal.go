package slab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Journal keeps values by key in a slab. An entry counts once it is whole, whenever the process is killed. Half of the
// slab is in use: when it is full, or most of it does not count any more, what still counts goes into the other half. Safe
// for concurrent use.
type Journal struct {
	mu      sync.Mutex
	memory  []byte
	head    *journalHead
	compact int // bytes of entries from which on it is worth while
	closed  bool
}

// journalHead is the beginning of a journal's slab.
type journalHead struct {
	magic  [8]byte
	half   atomic.Uint32 // the one in use
	_      uint32
	length [2]atomic.Uint64 // bytes of entries, by half
}

const (
	journalMagic = "nsgdjrn1"
	journalHeads = int(unsafe.Sizeof(journalHead{}))
	// An entry: the lengths of key and value, a checksum of both, then both, up to a multiple of entryAlign.
	entryHead  = 12
	entryAlign = 8
	deleted    = 1<<32 - 1 // the length of the value of a key that is gone
	// The entries grow to so many times what counted at the last compaction, and to so many bytes at least.
	growth, leastGrowth = 4, 1 << 20
)

// ErrClosed is the error of a change after Close.
var ErrClosed = errors.New("the journal is closed")

// ErrFull is a journal whose values don't fit into its slab.
var ErrFull = errors.New("the journal is full")

// NewJournal makes a journal of a slab of zeros, or opens that of an earlier process.
func NewJournal(memory []byte) (*Journal, error) {
	if len(memory) < journalHeads+2*entryAlign {
		return nil, fmt.Errorf("journal: %d bytes: too small", len(memory))
	}
	j := &Journal{memory: memory, head: (*journalHead)(unsafe.Pointer(&memory[0])), compact: leastGrowth}
	switch string(j.head.magic[:]) {
	case journalMagic:
	case string(make([]byte, len(journalMagic))):
		copy(j.head.magic[:], journalMagic)
	default:
		return nil, fmt.Errorf("journal: it begins with %q: must be %q", j.head.magic[:], journalMagic)
	}
	if half := j.head.half.Load(); half > 1 || j.head.length[half].Load() > uint64(len(j.area(0))) {
		return nil, fmt.Errorf("journal: half %d of %d bytes: it is damaged", half, j.head.length[half&1].Load())
	}
	return j, nil
}

func (j *Journal) area(half uint32) []byte {
	size := (len(j.memory) - journalHeads) / 2 &^ (entryAlign - 1)
	first := journalHeads + int(half)*size
	return j.memory[first : first+size : first+size]
}

// Close refuses changes from now on. One that is under way has come to its end: another process may go on.
func (j *Journal) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
}

// Put sets the value of a key.
func (j *Journal) Put(key string, value []byte) error { return j.append(key, value, false) }

// Delete removes a key.
func (j *Journal) Delete(key string) error { return j.append(key, nil, true) }

func (j *Journal) append(key string, value []byte, gone bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return ErrClosed
	}
	half := j.head.half.Load()
	if j.head.length[half].Load() < uint64(j.compact) && j.write(half, key, value, gone) {
		return nil
	}
	if err := j.change(half); err != nil {
		return err
	}
	if !j.write(1-half, key, value, gone) {
		return fmt.Errorf("journal: key %q: %w", key, ErrFull)
	}
	return nil
}

// write adds an entry to a half if there is room.
func (j *Journal) write(half uint32, key string, value []byte, gone bool) bool {
	area, length := j.area(half), j.head.length[half].Load()
	size := (entryHead + len(key) + len(value) + entryAlign - 1) &^ (entryAlign - 1)
	if uint64(size) > uint64(len(area))-length {
		return false
	}
	e := area[length:][:size]
	n := uint32(len(value))
	if gone {
		n = deleted
	}
	binary.LittleEndian.PutUint32(e, uint32(len(key)))
	binary.LittleEndian.PutUint32(e[4:], n)
	copy(e[entryHead:], key)
	copy(e[entryHead+len(key):], value)
	binary.LittleEndian.PutUint32(e[8:], crc32.ChecksumIEEE(e[entryHead:entryHead+len(key)+len(value)]))
	j.head.length[half].Store(length + uint64(size))
	return true
}

// change writes what counts in a half into the other one, and uses that.
func (j *Journal) change(half uint32) error {
	values, err := j.values(half)
	if err != nil {
		return err
	}
	j.head.length[1-half].Store(0)
	for key, value := range values {
		if !j.write(1-half, key, value, false) {
			return fmt.Errorf("journal: %d keys: %w", len(values), ErrFull)
		}
	}
	j.head.half.Store(1 - half)
	j.compact = max(leastGrowth, growth*int(j.head.length[1-half].Load()))
	return nil
}

// Values are those of all keys. They are copies.
func (j *Journal) Values() (map[string][]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	values, err := j.values(j.head.half.Load())
	for key, value := range values {
		values[key] = append([]byte(nil), value...)
	}
	return values, err
}

// values yields parts of the slab.
func (j *Journal) values(half uint32) (map[string][]byte, error) {
	values := map[string][]byte{}
	left := j.area(half)[:j.head.length[half].Load()]
	for len(left) > 0 {
		if len(left) < entryHead {
			return values, errDamaged
		}
		k, n := uint64(binary.LittleEndian.Uint32(left)), uint64(binary.LittleEndian.Uint32(left[4:]))
		gone := n == deleted
		if gone {
			n = 0
		}
		size := (entryHead + k + n + entryAlign - 1) &^ (entryAlign - 1)
		if size > uint64(len(left)) || crc32.ChecksumIEEE(left[entryHead:entryHead+k+n]) != binary.LittleEndian.Uint32(left[8:]) {
			return values, errDamaged
		}
		key := string(left[entryHead : entryHead+k])
		if gone {
			delete(values, key)
		} else {
			values[key] = left[entryHead+k : entryHead+k+n]
		}
		left = left[size:]
	}
	return values, nil
}

var errDamaged = errors.New("journal: an entry is damaged")
