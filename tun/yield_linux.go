package tun

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Yield lets another thread have the processor if one waits for it, and returns when it is this one's turn again. Go's
// scheduler is not told, as it is not when the kernel preempts a thread: the goroutine keeps its place.
func Yield() { syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
