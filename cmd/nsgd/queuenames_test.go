package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fdstore"
	"github.com/nsgd/nsgd/tun/tuntest"
	"golang.org/x/sys/unix"
)

// systemd passes all names in one variable, of which Linux takes 128 KB: a service with longer ones can't be started again.
func TestNamesOfQueuesFitOneVariable(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	store, why := fdstore.Open()
	if !store.IsSystemds() {
		t.Fatal(why)
	}
	n, queues, length := &inheritance{store: store}, 0, 0
	for {
		names := queueNames("ns", string(rune('a'+queues)), 32, true)
		if !n.named(names) {
			break
		}
		for _, name := range names {
			queues, length = queues+1, length+len(name)+1
		}
	}
	if length >= 128<<10 || queues < 7000 {
		t.Errorf("%d names of %d bytes", queues, length)
	}
	if !(&inheritance{names: 1 << 20}).named([]string{"q.a"}) {
		t.Error("nsgd keep, which uses several variables, is bounded too")
	}
}

// Only what an earlier process has left of a device as a whole is taken over: a queue that nobody reads would lose packets.
func TestQueuesFitAsAWhole(t *testing.T) {
	for _, test := range []struct {
		name    string
		left    int
		steered bool
		want    tun.Config // Queues and Steer; what is asked for are four queues, steered
		fits    bool
	}{
		{"as many", 4, true, tun.Config{Queues: 4, Steer: 7}, true},
		{"of one worker", 2, true, tun.Config{Queues: 4, Steer: 7}, false},
		{"of three workers", 6, true, tun.Config{Queues: 4, Steer: 7}, false},
		{"none", 0, true, tun.Config{Queues: 4, Steer: 7}, false},
		{"of two workers where the kernel could not steer", 2, false, tun.Config{Queues: 2}, true},
		{"of four workers where it could not", 4, false, tun.Config{Queues: 4, Steer: 7}, false},
	} {
		n := &inheritance{queues: map[string]*os.File{}}
		for _, name := range queueNames("ns", "eth0", test.left, test.steered) {
			n.queues[name] = os.Stdin
		}
		c := tun.Config{Namespace: "ns", Name: "eth0", Queues: 4, Steer: 7}
		if fits := n.fit(&c); fits != test.fits || c.Queues != test.want.Queues || c.Steer != test.want.Steer {
			t.Errorf("%s: %v, %d queues, steer %d", test.name, fits, c.Queues, c.Steer)
		}
	}
}

// Five thousand devices with four queues each have more descriptors than many a container may have.
func TestSparseFlowsHaveNoQueuesWhereDescriptorsAreScarce(t *testing.T) {
	most := (int(maxDescriptors()) - otherDescriptors) / descriptorsOf(4)
	for devices, want := range map[int]tun.Config{1: {Queues: 4, Steer: 7}, most: {Queues: 4, Steer: 7}, most + 1: {Queues: 2}} {
		var c tun.Config
		if queues(&c, 2, devices, 7); c.Queues != want.Queues || c.Steer != want.Steer {
			t.Errorf("%d devices: %d queues, steer %d", devices, c.Queues, c.Steer)
		}
	}
}

// The devices that had such queues keep them when one more comes: else all would open anew.
func TestQueuesOfSparseFlowsStayWithOneDeviceMore(t *testing.T) {
	most := (int(maxDescriptors()) - otherDescriptors) / descriptorsOf(4)
	for _, test := range []struct {
		left    int
		steered bool
		want    tun.Config
		fits    bool
	}{
		{4, true, tun.Config{Queues: 4, Steer: 9}, true},
		{2, false, tun.Config{Queues: 2}, true},
		{8, true, tun.Config{Queues: 2}, false},
		{4, false, tun.Config{Queues: 2}, false},
	} {
		n := &inheritance{queues: map[string]*os.File{}, steering: 9}
		for _, name := range queueNames("ns", "eth0", test.left, test.steered) {
			n.queues[name] = os.Stdin
		}
		c := tun.Config{Namespace: "ns", Name: "eth0"}
		queues(&c, 2, most+1, 9)
		if fits := n.fit(&c); fits != test.fits || c.Queues != test.want.Queues || c.Steer != test.want.Steer {
			t.Errorf("%d left: %v, %d queues, steer %d", test.left, fits, c.Queues, c.Steer)
		}
	}
}

// A reload that adds many devices gives each what a start gives it.
func TestDevicesThatComeTogetherCountTogether(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(otherDescriptors + 2*descriptorsOf(4)), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for devices, want := range map[int]int{2: 4, 3: 2} {
		var asked []int
		l := &liveDevices{workers: 2, steer: 7, offload: tun.TSO, open: func(c tun.Config) (tun.Device, tun.Offload, error) {
			asked = append(asked, c.Queues)
			m, err := tuntest.NewMemory(c.Name, c.Queues, 8)
			return m, tun.TSO, err
		}}
		plan := make([]tun.Config, devices)
		for i := range plan {
			plan[i].Name = fmt.Sprint("eth", i)
		}
		e, err := l.equip(plan)
		if err != nil {
			t.Fatal(err)
		}
		if asked[0] != want || len(slices.Compact(asked)) != 1 {
			t.Errorf("%d devices have %d queues, want %d", devices, asked, want)
		}
		if err := e.Undo(); err != nil {
			t.Error(err)
		}
	}
}

// loadLab reads the built-in lab.
func loadLab(t *testing.T) *loaded {
	t.Helper()
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	all, err := loadAll(t.Context(), filepath.Join(dir, lab.ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The process before has the interface until it ends, so that none of that name can be made.
func TestAnUpgradeIsRefusedWhereDevicesOpenAnew(t *testing.T) {
	all := loadLab(t)
	a := all.config.Attachments[0]
	for _, test := range []struct {
		name   string
		left   []string // names of queues
		file   *os.File // that they all are
		before *handshake
		want   error
	}{
		{"other queues, and a process that carries", queueNames(a.Netns, a.Device, all.config.workers()+1, false), os.Stdin, &handshake{}, errAnew},
		{"other queues, and nobody carries", queueNames(a.Netns, a.Device, all.config.workers()+1, false), os.Stdin, nil, nil},
		{"queues of another kind", queueNames(a.Netns, a.Device, 2*all.config.workers(), true), os.Stdin, &handshake{}, errAnew},
		{"no descriptor for another reason", queueNames(a.Netns, a.Device, 2*all.config.workers(), true), os.NewFile(1<<20, "none"), &handshake{}, nil},
		{"another device", queueNames(a.Netns, "other0", 1, false), os.Stdin, &handshake{}, nil},
	} {
		d := &daemon{inherited: &inheritance{queues: map[string]*os.File{}}, before: test.before}
		for _, name := range test.left {
			d.inherited.queues[name] = test.file
		}
		if err := d.prepare(all); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || d.adopted != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if err != nil && !strings.Contains(err.Error(), a.Device) {
			t.Errorf("%v: no device is named", err)
		}
	}
}

// Ctrl-C ends all of a terminal: a standby printed an error of its own after nsgd had ended well.
func TestADismissedStandbyEndsWithoutAWord(t *testing.T) {
	all := loadLab(t)
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	t.Setenv("NSGD_STANDBY", strconv.Itoa(ends[1]))
	s, err := fdstore.StandsBy()
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	_, err = new(daemon).standBy(ctx, s, all)
	if status, silent := errors.AsType[exitStatus](err); !silent || status != 0 {
		t.Errorf("ends with %v", err)
	}
}

// Who asks for an upgrade hears what the next process says, and that devices are why.
func TestThePredecessorHearsWhatWentWrong(t *testing.T) {
	for _, failed := range []error{nil, errors.New("no policy"), fmt.Errorf("device eth7: %w", errAnew)} {
		ours, theirs := net.Pipe()
		go newHandshake(theirs).done(failed)
		err := newHandshake(ours).hear(lineReady, takeOverPatience)
		if fmt.Sprint(err) != fmt.Sprint(failed) || errors.Is(err, errAnew) != errors.Is(failed, errAnew) {
			t.Errorf("%v was said, %v is heard", failed, err)
		}
		ours.Close()
	}
}

// A next process that the kernel had killed was waited for until two minutes had passed: this process had its end of the
// socket too.
func TestAnUpgradeEndsTheStandbyFirst(t *testing.T) {
	folder, err := os.MkdirTemp("", "k") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	keeper, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(folder, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close()
	t.Setenv("NOTIFY_SOCKET", keeper.LocalAddr().String())
	t.Setenv("FDSTORE", "1")
	defer func(before []string) { os.Args = before }(os.Args)
	os.Args = []string{os.Args[0], "-test.list=^$"} // the next process ends at once
	d := &daemon{log: slog.New(slog.DiscardHandler), devices: &liveDevices{}, privileged: &privileged.Client{}}
	if d.inherited, err = inherit(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if _, err = d.upgrade(ctx); err == nil || !strings.Contains(err.Error(), "this one stays: the other process has ended") {
		t.Errorf("a next process that ends: %v", err)
	}
	for _, want := range []string{"RELOADING=1", "READY=1"} {
		buf := make([]byte, 100)
		if err := keeper.SetReadDeadline(time.Now().Add(90 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := keeper.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("the keeper hears %q (%v), want %q", buf[:n], err, want)
		}
	}
}

// A keeper that was not told started another process beside the one that went on.
func TestNobodyGoesOnWhereTheKeeperCantBeTold(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	t.Setenv("FDSTORE", "1")
	ours, theirs := net.Pipe()
	defer ours.Close()
	d := &daemon{log: slog.New(slog.DiscardHandler), next: &successor{newHandshake(ours), 1}}
	var err error
	if d.inherited, err = inherit(); err != nil {
		t.Fatal(err)
	}
	d.inherited.leaving.Store(true)
	done := make(chan error, 1)
	go func() {
		done <- d.handOver()
		ours.Close()
	}()
	heard := newHandshake(theirs).hear(lineGo, takeOverPatience)
	theirs.Close()
	if err := <-done; heard == nil || err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("the next process hears %v, this one says %v", heard, err)
	}
}
