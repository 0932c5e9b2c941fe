package conntrack

// NoSlot is a number that is no slot.
const NoSlot = ^uint32(0)

// MaxSlots is how many stages a flow remembers, and SlotLimit what their slots are below.
const (
	MaxSlots  = 6
	SlotLimit = slotMask
)

const (
	slotBits = 21
	slotMask = 1<<slotBits - 1
	perWord  = 3
)

// Slots are the rules that decided about a packet, in the order of evaluation. They are
// packed, three a word with the first in the lowest bits, one more than the slot and 0 for
// none: so six have room in a flow's record, and are replaced without a lock. The zero value
// is empty.
type Slots [MaxSlots / perWord]uint64

// MakeSlots makes a list of at most MaxSlots slots.
func MakeSlots(slots ...uint32) (s Slots) {
	for i, slot := range slots {
		s.Set(i, slot)
	}
	return s
}

// Set puts a slot at place i, which has none yet. Places are filled from 0 on.
func (s *Slots) Set(i int, slot uint32) {
	s[i/perWord] |= uint64(slot+1) & slotMask << (i % perWord * slotBits)
}

// Pop takes the first slot off; ok is false when there is none.
func (s *Slots) Pop() (slot uint32, ok bool) {
	first := s[0] & slotMask
	s[0] = s[0]>>slotBits | s[1]&slotMask<<(slotBits*(perWord-1))
	s[1] >>= slotBits
	return uint32(first) - 1, first != 0
}
