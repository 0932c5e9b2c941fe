package packettest

// Choices hands out small numbers read from bytes, and zeroes when they have run out. A test or a
// fuzzer draws packets and policies from it.
type Choices []byte

// Next returns a number from 0 to n-1; n is at most 256.
func (c *Choices) Next(n int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % n
}

// Pick returns one of a list.
func Pick[T any](c *Choices, of ...T) T { return of[c.Next(len(of))] }
