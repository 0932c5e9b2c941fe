package tun

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/songgao/water"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A wake-up that stays would turn every later Wait into a busy loop.
func TestAWakeUpIsOver(t *testing.T) {
	queues := newEventQueues(t, 1)
	p := newPoller(t, asQueues(queues))
	p.Wake()
	if _, _, err := p.Wait(-1, nil, nil); err != nil {
		t.Fatal(err)
	}
	if n, errno := poll(&p.epoll, p.events); n != 0 || errno != 0 {
		t.Errorf("%d descriptors are still ready, %v", n, errno)
	}
	queues[0].inject()
	if ready, _, err := p.Wait(-1, nil, nil); err != nil || !slices.Equal(ready, []int{0}) {
		t.Errorf("after a wake-up: %v, %v", ready, err)
	}
}

// A thread without the privilege to return stays in the namespace for ever, and other
// goroutines would run on it.
func TestAThreadThatCannotReturnEnds(t *testing.T) {
	name, _ := newNamespace(t)
	home := threadNamespace(t)
	err := Do(name, func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		if err := unix.Capget(&header, &sets[0]); err != nil {
			return err
		}
		sets[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		sets[0].Permitted &^= 1 << unix.CAP_SYS_ADMIN
		return unix.Capset(&header, &sets[0])
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "no thread is left inside", func() bool {
		threads, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(threads, func(path string) bool {
			link, err := os.Readlink(path)
			return err == nil && link != home
		})
	})
}

// someGoroutineIsIn reports whether the stack of one goroutine names all of these.
func someGoroutineIsIn(names ...string) bool {
	stacks := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if !slices.ContainsFunc(names, func(name string) bool { return !strings.Contains(stack, name) }) {
			return true
		}
	}
	return false
}

func TestCloseEndsAWaitThatBlocks(t *testing.T) {
	p := newPoller(t, asQueues(newEventQueues(t, 1)))
	done := make(chan error, 1)
	go func() {
		_, _, err := p.Wait(-1, nil, nil)
		done <- err
	}()
	eventually(t, "the wait blocks", func() bool { return someGoroutineIsIn("(*Poller).block", "[syscall") })
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != os.ErrClosed {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
}

// Each call on a closed descriptor is a last one out.
func TestADescriptorsNumberIsGivenBackOnce(t *testing.T) {
	e, err := newEvent()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(0, e.fd, unix.O_CLOEXEC); err != nil { // the number is used again
		t.Fatal(err)
	}
	defer unix.Close(e.fd)
	e.enter()
	e.leave()
	if _, err := unix.FcntlInt(uintptr(e.fd), unix.F_GETFD, 0); err != nil {
		t.Errorf("the next file of that number was closed: %v", err)
	}
}

func TestANamespaceThatCouldNotBeMadeIsForgotten(t *testing.T) {
	s := newState(t)
	if err := os.RemoveAll(s.dir.Name()); err != nil { // so the journal can't be written
		t.Fatal(err)
	}
	name := uniqueName()
	if err := s.CreateNamespace(name); err == nil || namespaceExists(name) {
		t.Errorf("%v, made: %t", err, namespaceExists(name))
	}
	if names := s.Namespaces(); len(names) != 0 {
		t.Errorf("%v are remembered", names)
	}
}

// Without an owner any user in the namespace could open another queue.
func TestADeviceBelongsToRoot(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal("needs iproute2, which scripts/setup installs: ", err)
	}
	for _, offload := range []Offload{Auto, Off} {
		s := newState(t)
		name := uniqueName()
		openDevice(t, Config{Name: "eth0", Namespace: name, CreateNamespace: true, State: s, Queues: 2, Offload: offload})
		out, err := exec.Command(ip, "netns", "exec", name, ip, "-d", "link", "show", "dev", "eth0").CombinedOutput()
		for _, want := range []string{"user root", "group root"} {
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: %v: want %q in\n%s", offload, err, want, out)
			}
		}
	}
}

// The library opens the device so that children inherit it: none may start before the
// copy that they don't.
func TestNoChildStartsWhileTheLibraryOpensADevice(t *testing.T) {
	needRoot(t)
	config := water.Config{DeviceType: water.TUN}
	config.Name = "ng" + uniqueName()[len(uniqueName())-8:]
	type opened struct {
		fd  int
		err error
	}
	syscall.ForkLock.Lock() // a child is about to start
	done := make(chan opened, 1)
	go func() {
		fd, err := openWater(config)
		done <- opened{fd, err}
	}()
	eventually(t, "the open waits for the child", func() bool {
		select {
		case <-done:
			syscall.ForkLock.Unlock()
			t.Fatal("the device was opened while a child could start")
		default:
		}
		return someGoroutineIsIn("openWater", "RWMutex")
	})
	syscall.ForkLock.Unlock()
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	unix.Close(got.fd)
}

func TestChildrenInheritNoDescriptor(t *testing.T) {
	needRoot(t)
	for _, offload := range []Offload{Auto, Off} {
		d, _ := openDevice(t, Config{Name: "eth0", Namespace: uniqueName(), CreateNamespace: true, Queues: 2, Offload: offload})
		p := newPoller(t, d.Queues())
		k := d.(*kernelDevice)
		for what, fd := range map[string]int{
			"a queue": k.queues[0].FD(), "another queue": k.queues[1].FD(), "the namespace": int(k.ns),
			"the socket of statistics": k.stats.fd, "the poller": p.epoll.fd, "the poller's eventfd": p.wake.fd,
		} {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%v: %s has flags %#x, %v", offload, what, flags, err)
			}
		}
	}
}

// Some kernels refuse a few superpackets and take most: only refusals in a row count.
func TestASuperpacketThatIsTakenEndsTheRow(t *testing.T) {
	q, written := socketQueue(t)
	frame := udpSuperpacket(300, 100)
	for name, write := range map[string]func() error{
		"whole":    func() error { return q.Write(frame) },
		"in parts": func() error { return q.WriteParts([][]byte{frame[:50], frame[50:]}) },
	} {
		q.udp.refused = refusals - 1
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if got := written(); len(got) != 1 {
			t.Errorf("%s: %d frames, want the superpacket", name, len(got))
		}
		if q.udp.refused != 0 {
			t.Errorf("%s: %d refusals in a row after a superpacket that was taken", name, q.udp.refused)
		}
	}
	// What is no superpacket says nothing.
	q.tcp.refused = refusals - 1
	plain := append(make([]byte, HeaderLen), packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", Payload: 100})...)
	if err := errors.Join(q.Write(plain), q.WriteParts([][]byte{plain[:60], plain[60:]})); err != nil || q.tcp.refused != refusals-1 {
		t.Errorf("%v, %d refusals after packets that are none", err, q.tcp.refused)
	}
}

func TestPartsThatAreNoFrameAreRefused(t *testing.T) {
	q, written := socketQueue(t)
	plain := &plainQueue{descriptor: descriptor{fd: q.fd}}
	frame := append(make([]byte, HeaderLen), packettest.UDP(packettest.Spec{Src: "10.0.1.4", Dst: "10.0.3.4", Payload: 100})...)
	many := make([][]byte, MaxParts+1)
	many[0] = frame
	for name, parts := range map[string][][]byte{
		"no part":                    nil,
		"a first part without bytes": {frame[:HeaderLen], frame[HeaderLen:]},
		"more parts than places":     many,
		"more bytes than a frame":    {frame, make([]byte, BufferLen)},
	} {
		if err := q.WriteParts(parts); err != ErrFrame {
			t.Errorf("offload: %s: %v", name, err)
		}
		if err := plain.WriteParts(parts); err != ErrFrame {
			t.Errorf("plain: %s: %v", name, err)
		}
	}
	if got := written(); len(got) != 0 {
		t.Errorf("%d frames were written", len(got))
	}
	if err := q.WriteParts(many[:MaxParts]); err != nil {
		t.Errorf("as many parts as places: %v", err)
	}
}

// Another process may make a namespace of that name between the look and the mount.
func TestANamespaceThatAppearsMeanwhileIsNotTaken(t *testing.T) {
	needRoot(t)
	name := uniqueName()
	err := createNamespace(name, func(identity) error {
		return createNamespace(name, func(identity) error { return nil })
	})
	t.Cleanup(func() { netns.DeleteNamed(name) })
	if !errors.Is(err, ErrNamespaceExists) {
		t.Errorf("got %v, want ErrNamespaceExists", err)
	}
}

func TestATimeoutOfAWaitRoundsUp(t *testing.T) {
	for timeout, want := range map[time.Duration]int{
		-1: -1, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Second: 1000, math.MaxInt64 - time.Millisecond: math.MaxInt32,
	} {
		if got := wholeMilliseconds(timeout); got != want {
			t.Errorf("%v: %d ms, want %d", timeout, got, want)
		}
	}
}

func TestAFileThatIsNoLeftoverStays(t *testing.T) {
	needRoot(t)
	name := uniqueName()
	path := filepath.Join(namespaceDir, name)
	if err := errors.Join(os.MkdirAll(namespaceDir, 0o755), os.WriteFile(path, []byte("somebody's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	if removed, err := removeNamespace(name, identity{}); removed || err != nil || !namespaceExists(name) {
		t.Errorf("removed %t, %v", removed, err)
	}
}

// The last holder may remove the file between the open and the lock of the next one; a
// third would then lock a new file of that name.
func TestALockOnARemovedFileIsTakenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), lockName)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if locked, err := lockFile(f, path); !locked || err != nil {
		t.Errorf("the file that is there: %t, %v", locked, err)
	}
	os.Remove(path)
	if locked, err := lockFile(f, path); locked || err != nil {
		t.Errorf("a removed file: %t, %v", locked, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if locked, err := lockFile(f, path); locked || err != nil {
		t.Errorf("another file of that name: %t, %v", locked, err)
	}
}

func TestAnAnswerOfAnEarlierRequestIsNotTaken(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	s, err := openStats()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.ask(1 << 30); err != nil { // there is no such interface
		t.Fatal(err)
	}
	if _, ok := s.read(lo.Index); !ok {
		t.Error("the answer to an earlier request was taken")
	}
}

func TestStatisticsAreReadFromSoundMessagesOnly(t *testing.T) {
	message := func(kind uint16, length, bytes int) []byte {
		b := make([]byte, unix.NLMSG_HDRLEN+ifStatsMsgLen)
		binary.NativeEndian.PutUint16(b[4:], unix.RTM_NEWSTATS)
		b = binary.NativeEndian.AppendUint16(b, uint16(length))
		b = binary.NativeEndian.AppendUint16(b, kind)
		return append(b, make([]byte, bytes)...)
	}
	whole := unix.SizeofRtAttr + statsLinkLen
	other := message(99, 5, 4) // a byte, padded to a word
	for _, tt := range []struct {
		name  string
		bytes []byte
		ok    bool
	}{
		{"counters", message(unix.IFLA_STATS_LINK_64, whole, statsLinkLen), true},
		{"counters behind something else", append(other, message(unix.IFLA_STATS_LINK_64, whole, statsLinkLen)[unix.NLMSG_HDRLEN+ifStatsMsgLen:]...), true},
		{"counters that are cut off", message(unix.IFLA_STATS_LINK_64, whole-1, statsLinkLen), false},
		{"an attribute of no bytes", message(99, 0, statsLinkLen), false},
		{"an attribute beyond the message", message(unix.IFLA_STATS_LINK_64, whole+1, statsLinkLen), false},
		{"nothing", nil, false},
	} {
		if _, ok := parseStats(tt.bytes); ok != tt.ok {
			t.Errorf("%s: %t", tt.name, ok)
		}
	}
}
