package counter

// Numbers gives cells their numbers. The zero value has given none.
type Numbers struct {
	taken []bool
	free  []int // may hold taken ones
}

// Claim takes a number that an earlier process has given. It is false if it can't be one, or is taken.
func (x *Numbers) Claim(n int) bool {
	if n < 0 || n >= MaxCells || n < len(x.taken) && x.taken[n] {
		return false
	}
	for len(x.taken) <= n {
		x.free = append(x.free, len(x.taken))
		x.taken = append(x.taken, false)
	}
	x.taken[n] = true
	return true
}

// Take gives a number that nobody has.
func (x *Numbers) Take() int {
	for len(x.free) > 0 {
		n := x.free[len(x.free)-1]
		x.free = x.free[:len(x.free)-1]
		if !x.taken[n] {
			x.taken[n] = true
			return n
		}
	}
	x.taken = append(x.taken, true)
	return len(x.taken) - 1
}

// Give gives a number back.
func (x *Numbers) Give(n int) {
	x.taken[n] = false
	x.free = append(x.free, n)
}

// NewTally is that of an attachment that has counted nothing.
func (sets Sets) NewTally(number int) Tally {
	t := sets.ResumeTally(number)
	for _, c := range t.Cells {
		c.Clear()
	}
	return t
}

// ResumeTally goes on with what the cells of a number have counted.
func (sets Sets) ResumeTally(number int) Tally {
	t := Tally{Number: number}
	for _, set := range sets {
		t.Cells = append(t.Cells, set.NewCell(number))
	}
	return t
}
