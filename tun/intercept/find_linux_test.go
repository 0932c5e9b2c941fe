package intercept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/tun"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answering has somebody answer ARP for an address behind a port, until stop.
func (r *rig) answering(port int, a netip.Addr) (stop func()) {
	r.Helper()
	var fd int
	end := r.link(fmt.Sprint("q", port))
	r.do(func() (err error) {
		fd, err = listen(end.Attrs().Index)
		return err
	})
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		defer unix.Close(fd)
		frame := make([]byte, 128)
		for {
			select {
			case <-done:
				return
			default:
			}
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10); n <= 0 {
				continue
			}
			n, from, err := unix.Recvfrom(fd, frame, 0)
			sender, ok := from.(*unix.SockaddrLinklayer)
			target := a.As4()
			if err != nil || !ok || sender.Pkttype == unix.PACKET_OUTGOING || n < 42 || frame[12] != 8 || frame[13] != 6 || frame[21] != 1 || !bytes.Equal(frame[38:42], target[:]) {
				continue
			}
			own := end.Attrs().HardwareAddr
			answer := slices.Concat(frame[6:12], own, frame[12:21], []byte{2}, own, target[:], frame[22:32])
			_ = unix.Sendto(fd, answer, 0, &unix.SockaddrLinklayer{Ifindex: end.Attrs().Index})
		}
	})
	return sync.OnceFunc(func() { close(done); wait.Wait() })
}

// searches searches anew until what it finds is as wanted: a busy machine may be late with an answer.
func (r *rig) searches(what string, i *Interceptor, list []Port, is func() bool) {
	r.Helper()
	r.eventually(what, func() bool {
		clear(i.found)
		i.search(list)
		return is()
	})
}

func TestAGuestIsThePortThatAnswersForItsAddress(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1, 2)
	i := r.open()
	a := netip.MustParseAddr("10.0.1.4")
	guest := Port{Bridge: "br0", Guest: "vm1", Addresses: []netip.Addr{a}, Near: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
	// The first port belongs to a port with a name, and is not asked.
	list := []Port{{Interface: "p0"}, guest}
	defer r.answering(0, a)()
	fault := func() string {
		i.search(list)
		_, err := i.link(&list[1])
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if got, want := fault(), `no port of "br0" answers for [10.0.1.4]; asked were: p1 p2`; got != want {
		t.Errorf("error %q, want %q", got, want)
	}
	stop := r.answering(1, a)
	defer stop()
	second := r.answering(2, a)
	defer second()
	r.searches("both ports answer", i, list, func() bool {
		_, err := i.link(&list[1])
		return err != nil && strings.HasPrefix(err.Error(), `several ports of "br0" answer for [10.0.1.4]: p1 p2`)
	})
	list[1].MAC = r.link("q2").Attrs().HardwareAddr
	r.searches("the one with the guest's MAC", i, list, func() bool {
		_, err := i.link(&list[1])
		return err == nil && i.found["vm1"] == r.link("p2").Attrs().Index
	})
	r.must(r.handle.LinkSetNoMaster(r.link("p2")))
	if got, want := fault(), `no port of "br0" answers`; !strings.HasPrefix(got, want) {
		t.Errorf("a port that left its bridge: error %q, want %q", got, want)
	}
	elsewhere := exec.Command("sleep", "1000") // this process's main thread may be in the namespace just now
	r.must(elsewhere.Start())
	defer func() { elsewhere.Process.Kill(); elsewhere.Wait() }()
	inside := exec.Command("sleep", "1000")
	r.do(inside.Start)
	defer func() { inside.Process.Kill(); inside.Wait() }()
	list[1].Process = func() (int, error) { return inside.Process.Pid, nil }
	if got, want := fault(), "is in the host's network namespace"; !strings.Contains(got, want) {
		t.Errorf("a process in the host's namespace: error %q, want %q", got, want)
	}
	list[1].Process = func() (int, error) { return elsewhere.Process.Pid, nil }
	if got, want := fault(), `has no interface at "br0"`; !strings.Contains(got, want) {
		t.Errorf("a process elsewhere: error %q, want %q", got, want)
	}
}

func TestAServiceThatHangsIsAskedOnce(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0)
	pid := r.container(0)
	asked := 0
	hangs := func() (int, error) {
		asked++
		return 0, fmt.Errorf("docker: %w", context.DeadlineExceeded)
	}
	list := []Port{{Bridge: "br0", Guest: "a", Process: hangs}, {Bridge: "br0", Guest: "b", Process: func() (int, error) { return pid, nil }}}
	i := r.open()
	if i.search(list) || asked != 1 || len(i.found) > 0 {
		t.Errorf("asked %d times, want once; found %v", asked, i.found)
	}
	for n := range list {
		if _, err := i.link(&list[n]); !isMissing(err) || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
			t.Errorf("%s: error %v", list[n].Guest, err)
		}
	}
	// It may hang at that one alone.
	if i.search(list); asked != 2 || i.found["b"] != r.link("p0").Attrs().Index {
		t.Errorf("asked %d times, want twice; found %v, want b", asked, i.found)
	}
}

func TestNoMoreThanSoManyPortsAreAsked(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	a := netip.MustParseAddr("10.0.1.4")
	defer r.answering(1, a)()
	guest := &Port{Bridge: "br0", Guest: "vm1", Addresses: []netip.Addr{a}, Near: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	at := map[*Port][]netlink.Link{guest: {r.link("p0"), r.link("p1")}}
	for limit, want := range map[int]int{1: 0, 2: 1} {
		r.eventually(fmt.Sprintf("of %d ports %d answer", limit, want), func() (as bool) {
			r.do(func() error {
				answers, err := ask([]*Port{guest}, at, limit)
				as = len(answers[guest]) == want && (err != nil) == (want == 0)
				return nil
			})
			return as
		})
	}
}

func TestWhoseAddressAFrameSaysItIs(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	arp := slices.Concat(bytes.Repeat([]byte{0xff}, 6), mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, mac, []byte{10, 0, 1, 4}, make([]byte, 10))
	address := netip.MustParseAddr("fd00:db8:1:1::4").As16()
	advertisement := slices.Concat(make([]byte, 6), mac, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255}, make([]byte, 32), []byte{136, 0, 0, 0, 0, 0, 0, 0}, address[:])
	change := func(frame []byte, at int, to byte) []byte {
		frame = slices.Clone(frame)
		frame[at] = to
		return frame
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"an ARP message is its sender's", arp, "10.0.1.4"},
		{"a neighbour advertisement is its target's", advertisement, "fd00:db8:1:1::4"},
		{"an ARP message in another's MAC", change(arp, 27, 9), ""},
		{"a short ARP message", arp[:41], ""},
		{"a short advertisement", advertisement[:77], ""},
		{"an advertisement that a router sent on", change(advertisement, 21, 254), ""},
		{"a solicitation", change(advertisement, 54, 135), ""},
		{"nothing", nil, ""},
	} {
		got := ""
		if who, a, ok := claims(tt.frame); ok {
			got = a.String()
			if !bytes.Equal(who, mac) {
				t.Errorf("%s: MAC %v", tt.name, who)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAPortIsOneGuestAlone(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	i := r.open()
	near := []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}
	first, second := netip.MustParseAddr("10.0.1.4"), netip.MustParseAddr("10.0.1.5")
	list := []Port{
		{Bridge: "br0", Guest: "vm1", Addresses: []netip.Addr{first}, Near: near},
		{Bridge: "br0", Guest: "vm2", Addresses: []netip.Addr{second}, Near: near},
	}
	// vm2 is off, and vm1 answers for it too.
	defer r.answering(0, first)()
	stop := r.answering(0, second)
	r.searches("one port answers for both", i, list, func() bool { return len(i.found) == 0 })
	if _, err := i.link(&list[1]); err == nil || !strings.Contains(err.Error(), `"p0" is the port of several guests: vm1, vm2`) {
		t.Errorf("error %v", err)
	}
	stop()
	r.searches("vm1 is at p0", i, list, func() bool { return i.found["vm1"] == r.link("p0").Attrs().Index })
}

// A daemon that loses the processor finds answers late that came in time. A guest that floods holds it up a little only.
func TestAnswersThatCameInTimeAreHeardLate(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	answerOf := func(a byte) []byte {
		return slices.Concat(bytes.Repeat([]byte{0xff}, 6), mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, mac, []byte{10, 0, 1, a}, make([]byte, 10))
	}
	sockets, ends := map[int]int{}, [2]int{}
	for index := range ends {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		sockets[index], ends[index] = pair[0], pair[1]
	}
	for index, frames := range [][]byte{{4, 5}, {6}} {
		for _, a := range frames {
			if _, err := unix.Write(ends[index], answerOf(a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	heard, again := map[byte]int{}, 0
	hear(sockets, func(index int, _ net.HardwareAddr, a netip.Addr) {
		if len(heard) == 0 {
			time.Sleep(answerTime)
		}
		heard[a.As4()[3]] = index
		if a.As4()[3] == 5 && again < 2*lateAnswers { // it floods
			again++
			unix.Write(ends[0], answerOf(5))
		}
	})
	if want := map[byte]int{4: 0, 5: 0, 6: 1}; !maps.Equal(heard, want) {
		t.Errorf("heard %v, want %v", heard, want)
	}
	if again > lateAnswers {
		t.Errorf("%d answers were read when the time was over", again)
	}
}

// container starts a process in a network namespace of its own, which gets the ends of ports.
func (r *rig) container(ports ...int) (pid int) {
	r.Helper()
	process := exec.Command("unshare", "--net", "sleep", "1000")
	r.do(process.Start)
	r.Cleanup(func() { process.Process.Kill(); process.Wait() })
	pid = process.Process.Pid
	r.wait(func() bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return string(name) == "sleep\n"
	})
	for _, n := range ports {
		r.must(r.handle.LinkSetNsPid(r.link(fmt.Sprint("q", n)), pid))
	}
	return pid
}

func TestAContainerThatForgesNumbersOfInterfacesHasItsOwnPort(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	hostile := r.container(0)
	r.container(1)
	address := netip.MustParseAddr("10.0.1.4")
	// A veth inside that has the numbers of the victim's, with the address that tells ports apart.
	r.must(tun.Do(fmt.Sprint("pid:", hostile), func() error {
		port := r.link("p1").Attrs()
		number := strconv.Itoa
		return errors.Join(
			exec.Command("ip", "link", "add", "forged", "index", number(port.ParentIndex), "type", "veth", "peer", "name", "peer", "index", number(port.Index)).Run(),
			exec.Command("ip", "addr", "add", address.String()+"/24", "dev", "forged").Run())
	}))
	i := r.open()
	list := []Port{{Bridge: "br0", Guest: "hostile", Addresses: []netip.Addr{address}, Process: func() (int, error) { return hostile, nil }}}
	if i.search(list); i.found["hostile"] != r.link("p0").Attrs().Index {
		_, err := i.link(&list[0])
		t.Errorf("found %v, error %v: want p0", i.found, err)
	}
}

func TestOfAContainersPortsTheOneWithTheAddressIsMeant(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	pid := r.container(0, 1)
	address := netip.MustParseAddr("10.0.1.4")
	list := []Port{{Bridge: "br0", Guest: "c", Addresses: []netip.Addr{address}, Process: func() (int, error) { return pid, nil }}}
	i := r.open()
	i.search(list)
	if _, err := i.link(&list[0]); err == nil || !strings.Contains(err.Error(), "has 2 interfaces") {
		t.Errorf("error %v", err)
	}
	r.must(tun.Do(fmt.Sprint("pid:", pid), func() error {
		return exec.Command("ip", "addr", "add", address.String()+"/24", "dev", "q1").Run()
	}))
	if i.search(list); i.found["c"] != r.link("p1").Attrs().Index {
		t.Errorf("found %v, want p1", i.found)
	}
}

func TestGuestsThatQuarrelAboutAnAddressHoldUpNobodyElse(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	i := r.open()
	for _, name := range []string{"nsgd0", "nsgd1", "nsgd-rest"} {
		r.device(name)
	}
	a := netip.MustParseAddr("10.0.1.6")
	defer r.answering(0, a)()
	defer r.answering(1, a)()
	quarrel := Port{Bridge: "br0", Guest: "vm1", Device: "nsgd1", Addresses: []netip.Addr{a}, Near: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	r.eventually("a start that doesn't wait hears both", func() bool {
		clear(i.found)
		_, err := i.Check([]Port{quarrel})
		return err != nil && strings.Contains(err.Error(), "several ports")
	})
	quarrel.Wait = true
	list := []Port{quarrel, port0}
	r.eventually("a start that waits hears both", func() bool {
		clear(i.found)
		_, err := i.Check(list)
		r.must(err)
		return i.found["vm1"] == 0
	})
	r.must(errors.Join(i.Guard(list), i.Apply(list, []Rest{rest0})))
	if s := i.Statuses(); s[0].State != Waiting || s[1].State != Attached {
		t.Errorf("states %s and %s", s[0].State, s[1].State)
	}
	r.eventually("it is told that both answer", func() bool {
		var told []error
		clear(i.found)
		i.searchAgain(map[string]string{}, func(err error) { told = append(told, err) })
		return len(told) == 1 && strings.Contains(told[0].Error(), "several ports")
	})
}

func TestAGuestThatWasDetachedIsSearchedAnew(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0)
	i := r.open()
	r.device("nsgd0")
	r.device("nsgd-rest")
	a := netip.MustParseAddr("10.0.1.6")
	guest := Port{Bridge: "br0", Guest: "vm1", Wait: true, Device: "nsgd0", Addresses: []netip.Addr{a}, Near: []netip.Prefix{netip.PrefixFrom(a, 24)}}
	stop := r.answering(0, a)
	list := []Port{guest}
	_, err := i.Check(list)
	r.must(errors.Join(err, i.Apply(list, []Rest{rest0})))
	stop() // another guest is behind the port now
	r.must(i.Apply(nil, []Rest{rest0}))
	if i.search(list); len(i.found) > 0 {
		t.Errorf("found %v without an answer", i.found)
	}
}

func TestAGuestThatWasFoundKeepsItsPortOverARestart(t *testing.T) {
	r := newRig(t)
	r.bridge("br0", 0, 1)
	a := netip.MustParseAddr("10.0.1.6")
	list := []Port{{Bridge: "br0", Guest: "vm1", Device: "nsgd0", Addresses: []netip.Addr{a}, Near: []netip.Prefix{netip.PrefixFrom(a, 24)}}}
	i := r.open()
	stops := []func(){r.device("nsgd0"), r.device("nsgd-rest"), r.answering(0, a)}
	r.searches("vm1 is found", i, list, func() bool { return len(i.found) == 1 })
	_, err := i.Check(list)
	r.must(errors.Join(err, i.Guard(list), i.Apply(list, []Rest{rest0})))
	for _, stop := range stops {
		stop()
	}
	i.Close()
	defer r.answering(1, a)() // a neighbour takes its chance
	i = r.open()
	if _, err := i.Check(list); err != nil || i.found["vm1"] != r.link("p0").Attrs().Index {
		t.Errorf("found %v, error %v, want p0", i.found, err)
	}
	i.Close()
	list[0].Addresses = []netip.Addr{netip.MustParseAddr("10.0.1.7")} // the configuration is another one
	i = r.open()
	if _, err := i.Check(list); err == nil {
		t.Errorf("found %v, want nothing", i.found)
	}
}
