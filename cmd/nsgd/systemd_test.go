package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// units are where the units of systemd are.
const units = "../../deploy/systemd"

func systemdAnalyze(t *testing.T, arguments ...string) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: package systemd")
	}
	out, err := exec.Command(path, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", arguments, err, out)
	}
	return string(out)
}

// TestTheUnitIsConfined holds what systemd itself says of the daemon's unit: 0 is confined, 10 is not.
func TestTheUnitIsConfined(t *testing.T) {
	const most = 2.0
	out := systemdAnalyze(t, "security", "--offline=yes", "--no-pager", filepath.Join(units, "nsgd.service"))
	found := regexp.MustCompile(`Overall exposure level for nsgd\.service: ([0-9.]+)`).FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	if exposure, err := strconv.ParseFloat(found[1], 64); err != nil || exposure > most {
		t.Errorf("exposure %s, want at most %v:\n%s", found[1], most, out)
	}
}

// What strace -f saw of the daemon and of its privileged part over the lab, with a reload, questions and a scrape. What
// only the split makes, such as capset, is left out: the units start the privileged part otherwise.
const (
	daemonCalls = `accept4 access arch_prctl bind brk capget clock_gettime clone3 close connect dup3 epoll_create1 epoll_ctl
		epoll_pwait eventfd2 execve exit_group fcntl fstat futex getdents64 getpeername getpid getppid getrandom getsockname
		getsockopt gettid listen madvise mmap mprotect munmap nanosleep newfstatat openat pread64 prlimit64 read
		readlinkat recvfrom recvmsg restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield
		sendmsg sendto set_robust_list set_tid_address setsockopt sigaltstack socket statfs tgkill uname write writev`
	privilegedCalls = `access arch_prctl bind bpf brk capget clone3 close connect dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2
		execve exit_group fchmod fchmodat2 fcntl flock fstat fstatfs fsync ftruncate futex getpeername getpid getrandom
		getsockname getsockopt gettid ioctl listen madvise mkdirat mmap mount mprotect munmap nanosleep newfstatat openat prctl
		pread64 prlimit64 pwrite64 read readlinkat recvfrom recvmsg renameat restart_syscall rseq rt_sigaction rt_sigprocmask
		rt_sigreturn sched_getaffinity sched_yield sendmsg sendto set_robust_list set_tid_address setns setsockopt sigaltstack
		socket statfs tgkill umount2 uname unlinkat unshare write`
)

// TestUnitsAllowTheCallsThatAreMade expands the filters of system calls as systemd does.
func TestUnitsAllowTheCallsThatAreMade(t *testing.T) {
	for unit, calls := range map[string]string{"nsgd.service": daemonCalls, "nsgd-privileged@.service": privilegedCalls} {
		t.Run(unit, func(t *testing.T) {
			allowed := allowedCalls(t, unit)
			for _, call := range strings.Fields(calls) {
				if !allowed[call] {
					t.Errorf("%s is made and not allowed", call)
				}
			}
			for _, call := range []string{"ptrace", "init_module", "reboot", "swapon", "kexec_load"} {
				if allowed[call] {
					t.Errorf("%s is allowed", call)
				}
			}
			if unit == "nsgd.service" && (allowed["setns"] || allowed["bpf"] || allowed["mount"]) {
				t.Error("the daemon may make what its privileged part makes for it")
			}
		})
	}
}

func allowedCalls(t *testing.T, unit string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(units, unit))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		list, found := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !found {
			continue
		}
		list, denied := strings.CutPrefix(list, "~")
		for _, name := range strings.Fields(list) {
			for _, call := range expandCalls(t, name) {
				allowed[call] = !denied
			}
		}
	}
	return allowed
}

// expandCalls are the calls of a set, also of the sets in it.
func expandCalls(t *testing.T, name string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(name, "@") {
		return []string{name}
	}
	lines := strings.Split(strings.TrimSpace(systemdAnalyze(t, "syscall-filter", "--no-pager", name)), "\n")
	for _, line := range slices.DeleteFunc(lines[1:], func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }) {
		calls = append(calls, expandCalls(t, strings.TrimSpace(line))...)
	}
	return calls
}
