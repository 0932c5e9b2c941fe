package conntrack

// NoSlot stands for no slot.
const NoSlot = ^uint32(0)

// MaxSlots is how many slots a Slots holds. Every slot is below SlotLimit.
const (
	MaxSlots  = 2 * perWord
	SlotLimit = slotMask
)

const (
	slotBits = 21
	slotMask = 1<<slotBits - 1
	perWord  = 3
)

// Slots are the rules that decided about a packet, in the order of evaluation. The zero value
// is empty.
//
// Each word packs three, the first in the lowest bits, as slot+1; 0 is none. So six have room
// in a flow's record and are replaced without a lock. The words are two fields because the
// compiler keeps no array in registers.
type Slots struct{ first, second uint64 }

// MakeSlots makes a list of at most MaxSlots slots.
func MakeSlots(slots ...uint32) (s Slots) {
	for i, slot := range slots {
		s.Set(i, slot)
	}
	return s
}

// Set puts a slot at index i, which must be empty. Indexes are filled from 0 on.
func (s *Slots) Set(i int, slot uint32) {
	if i < perWord {
		s.first |= uint64(slot+1) << (i * slotBits)
	} else {
		s.second |= uint64(slot+1) << ((i - perWord) * slotBits)
	}
}

// More reports that there are slots left.
func (s Slots) More() bool { return s.first != 0 }

// First is the first slot; valid when there is one.
func (s Slots) First() uint32 { return uint32(s.first&slotMask) - 1 }

// Rest are the slots behind the first one.
func (s Slots) Rest() Slots {
	s.first >>= slotBits
	if s.first == 0 {
		s.first, s.second = s.second, 0
	}
	return s
}
