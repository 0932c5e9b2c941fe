package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// liveRig is a daemon whose devices are in memory.
type liveRig struct {
	t       testing.TB
	path    string
	service *inspect.Service
	live    *live
	log     *logringtest.Buffer
	devices *liveDevices
	opened  map[string]*tuntest.Memory // by DEVICE@NAMESPACE, the last one
	mu      sync.Mutex                 // devices close at a time
	closed  []string
	broken  string       // the place whose device can't be opened
	thin    string       // the place whose device has too few queues
	late    func()       // what the service wants to be called later
	upgrade func() error // what an upgrade does
	begun   int          // reloads that were told
}

// watched tells of its close.
type watched struct {
	*tuntest.Memory
	close   func()
	removed bool // by somebody else
}

func (w *watched) Stats() (tun.Stats, bool) {
	s, _ := w.Memory.Stats()
	return s, !w.removed
}

func (w *watched) Close() error {
	w.close()
	return w.Memory.Close()
}

const liveConfig = `policy: [policy]
attachments:
- {networkInterface: vm1-nic, netns: vm1, create: true, device: eth0}
- {networkInterface: vm2-nic, netns: vm2, create: true, device: eth0}
- {internet: true, netns: internet, create: true, device: eth0, addresses: [203.0.113.10/24]}
metrics: {listen: "off"}
`

func newLiveRig(t *testing.T) *liveRig { return newLiveRigKeeping(t, nil) }

// newLiveRigKeeping is newLiveRig with a store for what the next process finds; nil: nothing is kept.
func newLiveRigKeeping(t *testing.T, store *continuity.Store) *liveRig {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	r := newLiveRigOf(t, dir, liveConfig)
	r.live.kept = keptEdits{store}
	return r
}

// newLiveRigOf is newLiveRig with a configuration that it writes to a folder.
func newLiveRigOf(t testing.TB, dir, config string) *liveRig {
	r := &liveRig{t: t, log: &logringtest.Buffer{}, path: filepath.Join(dir, "live.yaml"), opened: map[string]*tuntest.Memory{}}
	r.write(config)
	all, err := loadAll(t.Context(), r.path)
	if err != nil {
		t.Fatal(err)
	}
	o := all.config.engineOptions(nil)
	o.Workers, o.Flows.Max = 2, 1024
	engine, err := dataplane.New(all.policy, o)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDevices(all.config, all.policy, engine.Snapshot().Attachments)
	if err != nil {
		t.Fatal(err)
	}
	r.devices = &liveDevices{open: r.open, offload: tun.TSO, workers: 2}
	var devices []tun.Device
	for _, p := range plan {
		d, _, err := r.open(p)
		if err != nil {
			t.Fatal(err)
		}
		devices, r.devices.list = append(devices, d), append(r.devices.list, liveDevice{p, d})
	}
	t.Cleanup(func() { r.devices.close() })
	if err := engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	r.live = &live{ctx: t.Context(), path: r.path, file: all.config, files: all.files, running: all.config, devices: r.devices, interception: new(interception), responders: new(responders), snapshot: engine.Snapshot}
	r.service = inspect.NewService(inspect.Options{Engine: engine, Policy: all.files, Places: all.config.places(),
		AfterFunc:     func(_ time.Duration, f func()) func() bool { r.late = f; return func() bool { return true } },
		Upgrade:       func(context.Context) (*inspect.Upgraded, error) { return nil, r.upgrade() },
		Reloading:     func() func(error) { r.begun++; return func(error) {} },
		Configuration: r.live, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := engine.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

func (r *liveRig) open(c tun.Config) (tun.Device, tun.Offload, error) {
	place := (&inspect.Place{Device: c.Name, Namespace: c.Namespace}).String()
	if place == r.broken {
		return nil, tun.Off, fmt.Errorf("%s is broken", place)
	}
	queues := 2
	if place == r.thin {
		queues = 1
	}
	m, err := tuntest.NewMemory(c.Name, queues, 8, tuntest.WithMTU(max(c.MTU, tun.DefaultMTU)))
	if err != nil {
		return nil, tun.Off, err
	}
	m.SetAddresses(c.Addresses)
	m.SetRoutes(c.Routes)
	r.opened[place] = m
	return &watched{Memory: m, close: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.closed = append(r.closed, place)
	}}, tun.TSO, nil
}

func (r *liveRig) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// attached is what the status lists.
func (r *liveRig) attached() string {
	var list []string
	for _, a := range r.service.Status().Attachments {
		list = append(list, fmt.Sprintf("%s %s@%s %d", a.Name, a.Device, a.Namespace, a.MTU))
	}
	return strings.Join(list, "\n")
}

const liveStart = "vm1-nic eth0@vm1 1500\nvm2-nic eth0@vm2 1500\ninternet eth0@internet 1500"

func TestAReloadChangesAttachments(t *testing.T) {
	add := func(lines ...string) string {
		return strings.Replace(liveConfig, "- {internet", strings.Join(lines, "\n")+"\n- {internet", 1)
	}
	const vm3 = "- {networkInterface: vm3-nic, netns: vm3, create: true, device: eth0}"
	for _, tt := range []struct {
		name, config string
		want         string // of the changes, or of the refusal
		attached     string // empty: liveStart
		closed       string
	}{
		{"nothing changes", liveConfig, "", "", ""},
		{"one comes", add(vm3), "attached vm3-nic", "vm1-nic eth0@vm1 1500\nvm2-nic eth0@vm2 1500\nvm3-nic eth0@vm3 1500\ninternet eth0@internet 1500", ""},
		{"one goes", strings.Replace(liveConfig, "- {networkInterface: vm2-nic, netns: vm2, create: true, device: eth0}\n", "", 1),
			"detached vm2-nic", "vm1-nic eth0@vm1 1500\ninternet eth0@internet 1500", "eth0@vm2"},
		{"the order changes", strings.Replace(strings.NewReplacer("vm1", "vm2", "vm2", "vm1").Replace(liveConfig), "", "", 1),
			"", "vm2-nic eth0@vm2 1500\nvm1-nic eth0@vm1 1500\ninternet eth0@internet 1500", ""},
		{"one is behind another device", strings.Replace(liveConfig, "netns: vm2", "netns: vm9", 1),
			"changed vm2-nic: device eth0@vm2 to eth0@vm9", "vm1-nic eth0@vm1 1500\nvm2-nic eth0@vm9 1500\ninternet eth0@internet 1500", "eth0@vm2"},
		{"two change places", strings.NewReplacer("netns: vm1", "netns: vm2", "netns: vm2", "netns: vm1").Replace(liveConfig),
			"changed vm1-nic: device eth0@vm1 to eth0@vm2, vm2-nic: device eth0@vm2 to eth0@vm1", "vm1-nic eth0@vm2 1500\nvm2-nic eth0@vm1 1500\ninternet eth0@internet 1500", ""},
		{"another stands behind a device", strings.Replace(liveConfig, "vm2-nic", "vm3-nic", 1),
			"attached vm3-nic; detached vm2-nic", "vm1-nic eth0@vm1 1500\nvm3-nic eth0@vm2 1500\ninternet eth0@internet 1500", ""},
		{"an MTU and addresses", strings.Replace(liveConfig, "addresses: [203.0.113.10/24]", "mtu: 9000, addresses: [203.0.113.11/24]", 1),
			"changed internet: mtu 0 to 9000, addresses [203.0.113.10/24] to [203.0.113.11/24]", "vm1-nic eth0@vm1 1500\nvm2-nic eth0@vm2 1500\ninternet eth0@internet 9000", ""},
		{"a device that can't be opened", strings.Replace(add(vm3), "203.0.113.10", "203.0.113.11", 1) + "- {networkInterface: vm4-nic, netns: broken, device: eth0}\n", "yaml", "", ""},
		{"one that the policy lacks", add("- {networkInterface: vm9-nic, netns: vm9, device: eth0}"), "attachment 2: ", "", ""},
		{"one twice", add(strings.Replace(vm3, "vm3-nic", "vm1-nic", 1)), `attachment 2: networkInterface "vm1-nic" is attached already by attachment 0`, "", ""},
		{"what is fixed", liveConfig + "workers: 7\nflows: {max: 5}\ntcpStrict: true\n", "workers: it can't change", "", ""},
		{"the platform comes", add("- {platform: true, netns: platform, create: true}"), "platform: true can't come", "", ""},
		{"a namespace that is made", strings.Replace(liveConfig, "create: true, ", "", 1), "attachments[0].create: it can't change", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLiveRig(t)
			r.write(tt.config)
			if tt.attached == "" {
				tt.attached = liveStart
			}
			checked, checkErr := r.service.Check(r.path)
			if r.attached() != liveStart || len(r.closed) > 0 {
				t.Fatalf("to ask has changed what is attached: %s", r.attached())
			}
			reloaded, err := r.service.Reload(inspect.ReloadRequest{})
			got, asked := "", ""
			switch {
			case err != nil:
				got = err.Error()
			case reloaded.Attachments != nil:
				got = reloaded.Attachments.String()
			}
			if checkErr != nil {
				asked = checkErr.Error()
			} else {
				asked = checked.String()
			}
			if got != asked || !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q, asked before %q, want %q", got, asked, tt.want)
			}
			if r.attached() != tt.attached {
				t.Errorf("attached\n%s\nwant\n%s", r.attached(), tt.attached)
			}
			if closed := strings.Join(r.closed, " "); closed != tt.closed {
				t.Errorf("closed %q, want %q", closed, tt.closed)
			}
		})
	}
}

func TestAReloadOpensADeviceAgainThatWasRemoved(t *testing.T) {
	r := newLiveRig(t)
	old := r.opened["eth0@vm2"]
	r.devices.list[1].device.(*watched).removed = true
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if r.opened["eth0@vm2"] == old || !slices.Equal(r.closed, []string{"eth0@vm2"}) || r.attached() != liveStart {
		t.Errorf("attached\n%s\nclosed %v", r.attached(), r.closed)
	}
}

func TestAReloadThatFailsGivesEverythingBack(t *testing.T) {
	r := newLiveRig(t)
	r.broken = "eth0@vm4"
	r.write(strings.Replace(liveConfig, "addresses: [203.0.113.10/24]}", `mtu: 9000, addresses: [203.0.113.11/24]}
- {networkInterface: vm3-nic, netns: vm3, device: eth0}
- {networkInterface: vm4-nic, netns: vm4, device: eth0}`, 1))
	_, err := r.service.Reload(inspect.ReloadRequest{})
	if err == nil || !strings.Contains(err.Error(), "attachments[4]: eth0@vm4 is broken") {
		t.Errorf("error %v", err)
	}
	internet := r.opened["eth0@internet"]
	if r.attached() != liveStart || internet.MTU() != tun.DefaultMTU || !slices.Equal(internet.Addresses(), prefixes("203.0.113.10/24")) {
		t.Errorf("attached\n%s\nthe internet's device has MTU %d and %v", r.attached(), internet.MTU(), internet.Addresses())
	}
	if !slices.Equal(r.closed, []string{"eth0@vm3"}) {
		t.Errorf("closed %v", r.closed)
	}
}

func TestAttachmentsOfScriptsLastUntilTheNextReloadOrAreKept(t *testing.T) {
	const vm3 = "{networkInterface: vm3-nic, netns: vm3, create: true, device: eth0}"
	with3 := liveStart + "\nvm3-nic eth0@vm3 1500"
	without2 := strings.Replace(liveStart, "vm2-nic eth0@vm2 1500\n", "", 1)
	type step struct {
		edit inspect.Edit // the zero value: a reload
		want string       // attached
		err  string
	}
	for name, steps := range map[string][]step{
		"an attachment is gone with the reload":     {{inspect.Edit{Attach: vm3}, with3, ""}, {inspect.Edit{}, liveStart, ""}},
		"a kept one stays":                          {{inspect.Edit{Attach: vm3, Keep: true}, with3, ""}, {inspect.Edit{}, with3, ""}, {inspect.Edit{Detach: "VM3-nic"}, liveStart, ""}, {inspect.Edit{}, liveStart, ""}},
		"what is detached comes back with a reload": {{inspect.Edit{Detach: "vm2-nic"}, without2, ""}, {inspect.Edit{}, liveStart, ""}},
		"what is kept away does not":                {{inspect.Edit{Detach: "vm2-nic", Keep: true}, without2, ""}, {inspect.Edit{}, without2, ""}},
		"what is attached already":                  {{inspect.Edit{Attach: "{networkInterface: vm1-nic, netns: vm7, device: eth0}"}, liveStart, "is attached already: detach it first"}},
		"a name that is not attached":               {{inspect.Edit{Detach: "vm7"}, liveStart, `"vm7" is not attached: attached are internet, vm1-nic, vm2-nic`}},
		"an unknown key":                            {{inspect.Edit{Attach: "{networkInterfaces: vm3-nic}"}, liveStart, `attachment:1: unknown key "networkInterfaces"`}},
		"a fault":                                   {{inspect.Edit{Attach: "{networkInterface: vm3-nic, netns: vm3}"}, liveStart, "attachments[3].device: missing"}},
		"a device that is taken":                    {{inspect.Edit{Attach: "{networkInterface: vm3-nic, netns: vm1, device: eth0}"}, liveStart, "attachments[0] has a device of that name"}},
		"one that the policy lacks":                 {{inspect.Edit{Attach: "{networkInterface: vm9-nic, netns: vm9, device: eth0}"}, liveStart, "attachment 3"}},
		"another device": {{inspect.Edit{Detach: "vm2-nic"}, without2, ""}, {inspect.Edit{Attach: "{networkInterface: vm2-nic, netns: vm8, device: eth0}"},
			strings.Replace(liveStart, "@vm2", "@vm8", 1), ""}, {inspect.Edit{}, liveStart, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLiveRig(t)
			for i, s := range steps {
				var err error
				if reflect.DeepEqual(s.edit, inspect.Edit{}) {
					_, err = r.service.Reload(inspect.ReloadRequest{})
				} else {
					_, err = r.service.Attach(s.edit)
				}
				if s.err == "" && err != nil || s.err != "" && (err == nil || !strings.Contains(err.Error(), s.err)) {
					t.Errorf("step %d: error %v, want %q", i, err, s.err)
				}
				if r.attached() != s.want {
					t.Errorf("step %d: attached\n%s\nwant\n%s", i, r.attached(), s.want)
				}
				if known, now := r.service.Generations()[0], r.service.Snapshot().Generation; known != now {
					t.Errorf("step %d: generation %d decides, and %d can be compared", i, now, known)
				}
			}
		})
	}
}

func TestRoutesGoToTheDeviceThatIsLeft(t *testing.T) {
	r := newLiveRig(t)
	r.write(strings.NewReplacer("netns: vm1, create: true, device: eth0", "device: nsg1", "netns: vm2, create: true, device: eth0", "device: nsg2").Replace(liveConfig))
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	first, second := r.opened["nsg1"], r.opened["nsg2"]
	if want := netip.MustParsePrefix("10.0.0.0/16"); !slices.Contains(first.Routes(), want) || slices.Contains(second.Routes(), want) {
		t.Fatalf("routes %v and %v", first.Routes(), second.Routes())
	}
	if _, err := r.service.Attach(inspect.Edit{Detach: "vm1-nic"}); err != nil {
		t.Fatal(err)
	}
	if want := netip.MustParsePrefix("10.0.0.0/16"); !slices.Contains(second.Routes(), want) {
		t.Errorf("routes %v", second.Routes())
	}
}

// Readers of files that stay keep what they have read: a service tag file takes long to parse.
func TestFilesThatStayAreNotReadAnew(t *testing.T) {
	r := newLiveRig(t)
	dir := filepath.Dir(r.path)
	if err := os.CopyFS(filepath.Join(dir, "copied"), os.DirFS(filepath.Join(dir, "policy"))); err != nil {
		t.Fatal(err)
	}
	all, err := loadPolicy(t.Context(), r.path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, config string
		same         bool
	}{
		{"nothing changed", liveConfig, true},
		{"an attachment less", strings.Replace(liveConfig, "- {networkInterface: vm2-nic, netns: vm2, create: true, device: eth0}\n", "", 1), true},
		{"other policy files", strings.Replace(liveConfig, "[policy]", "[copied]", 1), false},
		{"a partial policy", liveConfig + "allowPartial: true\n", false},
		{"other parameters", liveConfig + "templates: {timeout: 5s}\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.write(tt.config)
			next, err := loadPolicy(t.Context(), r.path, all, nil)
			if err != nil {
				t.Fatal(err)
			}
			if same := next.files == all.files; same != tt.same {
				t.Errorf("the same reader: %v, want %v", same, tt.same)
			}
		})
	}
}

func TestAReloadThatTheEngineRefusesChangesNothing(t *testing.T) {
	r := newLiveRig(t)
	r.thin = "eth1@vm1"
	r.write(strings.Replace(liveConfig, "netns: vm1, create: true, device: eth0", "netns: vm1, create: true, device: eth1, mtu: 1400", 1))
	const want = "has 1 queues for 2 workers"
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	if got := r.attached(); got != liveStart {
		t.Errorf("attached\n%s, want\n%s", got, liveStart)
	}
	if !slices.Equal(r.closed, []string{r.thin}) {
		t.Errorf("closed %v, want the new device alone", r.closed)
	}
}

// The next process may have read the files before: it would carry on by the older ones.
func TestNothingChangesWhileAnUpgradeIsUnderWay(t *testing.T) {
	r := newLiveRig(t)
	before := r.attached()
	failed := errors.New("not prepared")
	r.upgrade = func() error {
		if _, err := r.service.Reload(inspect.ReloadRequest{}); !errors.Is(err, inspect.ErrUpgrading) {
			t.Errorf("reload: %v", err)
		}
		if _, err := r.service.Attach(inspect.Edit{Detach: "vm2-nic"}); !errors.Is(err, inspect.ErrUpgrading) {
			t.Errorf("detach: %v", err)
		}
		if _, err := r.service.Upgrade(t.Context()); !errors.Is(err, inspect.ErrUpgrading) {
			t.Errorf("another upgrade: %v", err)
		}
		return failed
	}
	if _, err := r.service.Upgrade(t.Context()); !errors.Is(err, failed) {
		t.Error(err)
	}
	if r.begun != 0 {
		t.Errorf("%d reloads were told that never began: a keeper starts a standby beside two processes", r.begun)
	}
	if got := r.attached(); got != before {
		t.Errorf("attached\n%s, want\n%s", got, before)
	}
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil {
		t.Errorf("a reload after an upgrade that failed: %v", err)
	}
}

// The return takes attachments, namespaces and what nsgctl attach did back too.
func TestAReloadOfAttachmentsThatNobodyConfirmsIsTakenBack(t *testing.T) {
	r := newLiveRig(t)
	if _, err := r.service.Attach(inspect.Edit{Attach: "{networkInterface: vm3-nic, netns: vm3, device: eth0}"}); err != nil {
		t.Fatal(err)
	}
	before := r.attached()
	r.write(strings.Replace(liveConfig, "vm2-nic, netns: vm2", "vm4-nic, netns: vm4", 1))
	reloaded, err := r.service.Reload(inspect.ReloadRequest{ConfirmWithin: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := reloaded.Attachments.String(), "attached vm4-nic; detached vm2-nic, vm3-nic"; got != want {
		t.Errorf("the reload: %s, want %s", got, want)
	}
	if _, err := r.service.Attach(inspect.Edit{Detach: "vm4-nic"}); !errors.Is(err, inspect.ErrUnconfirmed) {
		t.Errorf("detach meanwhile: %v", err)
	}
	r.late()
	if got := r.attached(); got != before {
		t.Errorf("attached are\n%s\nwant\n%s", got, before)
	}
	if _, err := r.service.Attach(inspect.Edit{Detach: "vm3-nic"}); err != nil {
		t.Error(err)
	}
}

// send lets a datagram come from a NIC of the configuration to another, and waits until as many flows live.
func (r *liveRig) send(from, src, dst string, srcPort, dstPort uint16, live int64) {
	r.t.Helper()
	p := packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: srcPort, DstPort: dstPort})
	before := r.received(from)
	if !r.opened["eth0@"+from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		r.t.Fatal("memory device is full")
	}
	for deadline := time.Now().Add(90 * time.Second); r.received(from) == before || r.service.Status().Flows.Live != live; runtime.Gosched() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d flows live, want %d", r.service.Status().Flows.Live, live)
		}
	}
}

// received counts the packets of the attachment in a namespace.
func (r *liveRig) received(namespace string) uint64 {
	for _, a := range r.service.Status().Attachments {
		if a.Namespace == namespace {
			return a.ReceivePackets
		}
	}
	return 0
}

// A dry run judges live flows by the configuration as it would be, attachments included, and leaves no trace.
func TestADryRunSaysWhatAReloadWouldChange(t *testing.T) {
	r := newLiveRig(t)
	snapshot := r.service.Snapshot()
	r.send("vm2", "10.0.1.5", "10.0.1.4", 40000, 53, 1)
	r.write(strings.Replace(liveConfig, "- {networkInterface: vm2-nic, netns: vm2, create: true, device: eth0}\n", "", 1))
	diff, err := r.service.Diff(&inspect.RunningQuestion{})
	if err != nil {
		t.Fatal(err)
	}
	if diff.Attachments == nil || diff.Attachments.String() != "detached vm2-nic" || len(diff.Changes) != 0 || diff.LiveFlows.Cut != 1 ||
		diff.LiveFlows.List[0].Reason != inspect.ReasonMoved {
		t.Errorf("%+v, %+v", diff, diff.LiveFlows)
	}
	if r.service.Snapshot() != snapshot || r.attached() != liveStart || len(r.closed) != 0 {
		t.Errorf("it changed: attached are\n%s\nclosed %v", r.attached(), r.closed)
	}
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil || r.service.Status().Flows.Live != 0 {
		t.Errorf("the reload leaves %d flows, %v", r.service.Status().Flows.Live, err)
	}
	r.write("metrics: {listen: 127.0.0.1:1}\n" + strings.Replace(liveConfig, `metrics: {listen: "off"}`, "", 1))
	if _, err := r.service.Diff(&inspect.RunningQuestion{}); err == nil || !strings.Contains(err.Error(), "metrics: it can't change") {
		t.Errorf("what a reload refuses: %v", err)
	}
}

// Only a candidate that follows the policy in force knows which groups cut connections.
func TestADryRunSaysWhichAnsweredFlowsAGroupWouldCut(t *testing.T) {
	r := newLiveRig(t)
	r.send("vm2", "10.0.1.5", "10.0.1.4", 40000, 53, 1)
	r.send("vm1", "10.0.1.4", "10.0.1.5", 53, 40000, 1)
	file := filepath.Join(filepath.Dir(r.path), "policy", "nsg1.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(`"Internet"`, `"*"`, `"80"`, `"*"`, `"Tcp"`, `"*"`, `"TCP"`, `"*"`, `"Allow"`, `"Deny"`).Replace(string(text))
	changed = strings.Replace(changed, `"properties": {`, `"properties": {"flushConnection": true, `, 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	diff, err := r.service.Diff(&inspect.RunningQuestion{})
	if err != nil || diff.LiveFlows.Cut != 1 || diff.LiveFlows.List[0].Reason != ask.ReasonRule {
		t.Errorf("%v, %+v", err, diff)
	}
}
