package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is CPU time since some beginning.
type usage struct {
	at      time.Time
	machine time.Duration // of all CPUs together, idle and stolen time not counted
	process time.Duration // of the process that carries the packets, if there is one
	carried bool          // there is one
}

// userHz is the unit of /proc/stat, the same on every architecture that Go runs on.
const userHz = 100

// readUsage reads the machine's and, unless pid is 0, a process's.
func readUsage(pid int) (usage, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	u := usage{at: time.Now(), carried: pid != 0}
	idle, err := parseStat(string(stat))
	if err != nil {
		return u, err
	}
	u.machine = time.Duration(runtime.NumCPU())*u.at.Sub(start) - idle
	if pid == 0 {
		return u, nil
	}
	// The CPU clock of a whole process in nanoseconds, clock_getcpuclockid(3); /proc/PID/stat
	// counts the same in hundredths of a second.
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &spent); err != nil {
		return u, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	u.process = time.Duration(spent.Nano())
	return u, nil
}

// cpuclockSched is CPUCLOCK_SCHED of the kernel's posix-timers.h.
const cpuclockSched = 2

// start is what times are counted from.
var start = time.Now()

// parseStat adds up the time in /proc/stat that no program had: idle, waiting for a disk and
// stolen by the host. These the kernel measures; the busy ones many kernels only sample with
// their clock tick, which traffic in an even beat misses or meets every time.
func parseStat(stat string) (time.Duration, error) {
	first, _, _ := strings.Cut(stat, "\n")
	var user, nice, system, idle, iowait, irq, softirq, steal uint64
	if _, err := fmt.Sscanf(first, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return 0, fmt.Errorf("/proc/stat: %q: %w", first, err)
	}
	return time.Duration(idle+iowait+steal) * time.Second / userHz, nil
}

func (u usage) since(before usage) usage {
	return usage{machine: u.machine - before.machine, process: u.process - before.process, carried: u.carried, at: time.Time{}.Add(u.at.Sub(before.at))}
}

// length is that of a span that since returned.
func (u usage) length() time.Duration { return u.at.Sub(time.Time{}) }

const (
	// idleSpan is how long an idle machine and an idle daemon are watched.
	idleSpan = 1500 * time.Millisecond
	// idleSettle is how long a daemon has for what its start leaves to do.
	idleSettle = 500 * time.Millisecond
)

// watchIdle returns what the machine and a process use while nobody asks anything of them.
func watchIdle(pid int) (usage, error) {
	before, err := readUsage(pid)
	if err != nil {
		return usage{}, err
	}
	time.Sleep(idleSpan)
	after, err := readUsage(pid)
	return after.since(before), err
}

// measureIdle measures what the daemon uses of one core when there is nothing to carry.
func measureIdle(t *trial) error {
	if t.network.pid == 0 {
		return nil
	}
	time.Sleep(idleSettle)
	u, err := watchIdle(t.network.pid)
	if err != nil {
		return err
	}
	t.figure("idle", u.process.Seconds()/u.length().Seconds())
	return nil
}

// cost divides CPU time by what it was spent for, the machine's without what it uses idle.
func (t *trial) cost(unit string, u usage, amount float64) {
	if amount == 0 {
		return
	}
	t.figure("cpu_"+unit, (u.machine.Seconds()-t.idle*u.length().Seconds())/amount)
	if u.carried {
		t.figure("cpu_"+unit+"_process", u.process.Seconds()/amount)
	}
}
