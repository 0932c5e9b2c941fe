package continuity

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is the monotonic clock, which is the same in all processes until the machine starts again.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
