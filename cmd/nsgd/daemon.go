package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/denylog"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/logring"
	"github.com/nsgd/nsgd/dataplane/platform"
	"github.com/nsgd/nsgd/dataplane/probe"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/metrics"
	"github.com/nsgd/nsgd/metrics/flowlog"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/sync/errgroup"
)

// shutdownPatience is how long running answers may still take.
const shutdownPatience = 2 * time.Second

// daemon is everything that one run holds.
type daemon struct {
	path   string // of the configuration
	config *Config
	file   *Config // config with what the cluster has not given to this host
	share  share   // at the start
	edits  []edit  // that the last process has left
	member *member // of the cluster; nil: there is none
	policy *inspect.PolicyFiles
	read   time.Time // when the reading of both began
	log    *slog.Logger
	lines  *logring.Handler // of log
	warned sync.Map         // of warn

	stdout io.Writer // of flow logs

	inherited *inheritance
	before    *handshake              // with the process that this one takes over from; nil: none
	end       context.CancelCauseFunc // of the run
	next      *successor              // that takes over once this process has stopped; nil: none
	collect   func()                  // has the collector run again
	adopted   *adopted                // what packets flow through at once; nil: devices have to be opened first

	reserved *conntrack.Reserved // of the engine's flow table; nil: the engine makes it

	halt     context.CancelFunc // ends carried; nil: nothing is carried
	carried  chan error         // of the engine's end
	engine   *dataplane.Engine
	recorder *flowlog.Recorder // nil without flow logs
	recorded bool              // it has come to its end
	history  *history.History  // nil: nothing is remembered
	service  *inspect.Service
	serving  atomic.Bool   // service is there, and all else that start makes
	probes   *probe.Prober // nil without a platform attachment
	offload  tun.Offload
	devices  *liveDevices
	// privileged does what needs a capability. The daemon has none.
	privileged *privileged.Client
	// interception is what stands before interfaces that exist.
	interception *interception
	responders   *responders
	confirmation confirmation
	control      net.Listener
	remote       remote
	metrics      net.Listener // nil when off
	hangups      chan os.Signal
	releases     []func() error
}

// start takes everything that the run needs. Lock, socket and port come before the first device,
// so that a second daemon fails before it harms the first; devices that an earlier process has left to this one carry
// packets before that. After an error, stop gives back what was taken.
func (d *daemon) start(ctx context.Context, all *loaded) (err error) {
	var release func()
	d.hangups, release = catchHangup()
	d.onStop(func() error { release(); return nil })
	if d.adopted != nil { // what the process before has left is this one's already
		if err := d.carryAdopted(ctx, all); err != nil {
			return err
		}
	}
	d.before.release()
	if err := d.listen(ctx); err != nil {
		return err
	}
	if d.engine == nil {
		if err := d.makeEngine(all); err != nil {
			return err
		}
	}
	if err := d.listenMetrics(); err != nil {
		return err
	}
	if err := d.attach(ctx); err != nil {
		return errors.Join(err, d.forgetEdits())
	}
	if d.adopted != nil { // packets flow already
		return nil
	}
	if err := d.record(d.stdout); err != nil {
		return err
	}
	d.carry(ctx)
	return nil
}

// listen takes the state directory and the control socket.
func (d *daemon) listen(ctx context.Context) error {
	left, err := d.begin(ctx)
	if err != nil {
		return alreadyRunning(err)
	}
	d.onStop(closeListener(d.control))
	if len(left) > 0 {
		d.log.Info("removed namespaces that an interrupted run left", "namespaces", left)
	}
	return nil
}

// makeEngine makes the engine, with the flows of the last process.
func (d *daemon) makeEngine(all *loaded) (err error) {
	c := d.config
	if err := d.inherited.open(c.State.File, d.log); err != nil {
		return err
	}
	d.onStop(d.inherited.close)
	if err := d.resumeEdits(all); err != nil {
		return err
	}
	c = d.config
	options, began := c.engineOptions(d.log), time.Now()
	options.Compiled, options.Continuity, options.Flows.Reserved = all.snapshot, d.inherited.kept, d.reserved
	if len(c.FlowLogs) > 0 && d.inherited.kept != nil {
		options.Flows.NotesPerFlow = flowlog.NotesPerFlow
	}
	if d.engine, err = dataplane.New(all.policy, options); err != nil {
		return err
	}
	d.probes = d.prober() // packets may flow from here on, and backends that are down get none
	d.fence()
	if keep := c.History.keep(); keep > 0 {
		if d.history, err = history.New(history.Options{Engine: d.engine, Keep: keep}); err != nil {
			return err
		}
	}
	d.inherited.tell(d.log, d.engine.Flows().Adoption(), time.Since(began))
	return nil
}

// listenMetrics listens on the addresses of the network.
func (d *daemon) listenMetrics() (err error) {
	if err := d.listenRemote(); err != nil {
		return err
	}
	if c := d.config; c.Metrics.Listen != metricsOff {
		if d.metrics, err = net.Listen("tcp", c.Metrics.Listen); err != nil {
			return fmt.Errorf("metrics: %w: set metrics.listen to a free address, or to %s", err, metricsOff)
		}
		d.onStop(closeListener(d.metrics))
	}
	return nil
}

// beginPatience bounds how long the privileged part of the last process may take to end.
const beginPatience = 10 * time.Second

// begin has the privileged part take the state directory and open the control socket.
func (d *daemon) begin(ctx context.Context) (leftovers []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, beginPatience)
	defer cancel()
	for {
		d.control, leftovers, err = d.privileged.Begin(d.inherited.resumes)
		if _, running := errors.AsType[*tun.RunningError](err); !running || !d.inherited.resumes {
			return leftovers, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func closeListener(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) { // the server may have closed it
			return err
		}
		return nil
	}
}

// attach opens the devices and hands them to the engine, or makes those that it has what the configuration says.
func (d *daemon) attach(ctx context.Context) error {
	if err := d.openMember(); err != nil {
		return err
	}
	plan, err := planDevices(d.config, d.engine.Snapshot().Policy, d.engine.Snapshot().Attachments)
	if err != nil {
		return err
	}
	for i := range plan {
		queues(&plan[i], d.engine.Workers(), len(plan), d.steer())
		plan[i].Warn = d.warn
		if d.inherited.store.Exists() {
			plan[i].TxQueueLen = waitingPackets(len(plan) * plan[i].Queues)
		}
	}
	want, err := tun.ParseOffload(d.config.Offload)
	if err != nil {
		return err
	}
	if err := d.interception.prepare(d.config, plan, d.engine.Snapshot().Policy, d.engine.Snapshot().Attachments); err != nil {
		return err
	}
	var devices []tun.Device
	if d.adopted != nil {
		err = d.configure(plan)
	} else {
		var offload tun.Offload
		if devices, offload, err = openDevices(d.inherited.opener(d.privileged.Open), plan, want); err == nil {
			d.setDevices(plan, devices, offload)
		}
	}
	if err != nil {
		return err
	}
	if err := errors.Join(d.inherited.discard(), d.privileged.KeepNamespaces(createdNamespaces(plan))); err != nil {
		return err
	}
	d.removeFabric()
	if d.adopted == nil {
		if err := d.engine.Attach(devices); err != nil {
			return err
		}
	}
	d.onStop(d.interception.close)
	if err := d.interception.settle(); err != nil {
		return err
	}
	if err := d.servePlatform(ctx); err != nil {
		return err
	}
	d.responders = &responders{log: d.log, snapshot: d.engine.Snapshot, open: d.privileged.Frames}
	var beyond func(*policy.Set) []topology.Spec
	if d.member != nil {
		beyond = d.member.beyond
	}
	d.service = inspect.NewService(inspect.Options{
		Engine: d.engine, Policy: d.policy, Places: d.config.places(), Probes: d.probes, History: d.history,
		Configuration: &live{ctx: ctx, path: d.path, log: d.log, file: d.file, files: d.policy, running: d.config, edits: d.edits, kept: keptEdits{d.inherited.kept}, devices: d.devices, interception: d.interception, responders: d.responders, snapshot: d.engine.Snapshot, share: d.share, member: d.member},
		Version:       version, Offload: d.offload.String(), Control: d.config.Control.Socket, ControlListen: d.remote.address(), Metrics: d.metricsAddress(),
		Reloading: d.reloading, FlowLogs: d.flowLogUse, Interfaces: d.interfaces, Confirm: d.confirmed, Upgrade: d.upgrade, Unkept: d.inherited.unkept, Standby: d.inherited.store.Standby, Cluster: d.member.status, Beyond: beyond, Hosts: d.member.hosts, Earlier: d.config.earlierPolicies(), Log: d.log,
	})
	d.onStop(func() error { d.service.Close(); return nil })
	return d.member.join(d)
}

// removeFabric removes what a process with cluster: has left between hosts, where this one has none.
func (d *daemon) removeFabric() {
	if d.config.Cluster != nil {
		return
	}
	if _, err := net.InterfaceByName(fabricDevice); err != nil { // it costs nothing to see that there is none
		return
	}
	removed, err := d.privileged.RemoveFabric()
	if err != nil {
		d.log.Warn("what an earlier nsgd with cluster: has left stays: nsgd detach removes it", "error", err)
	} else if len(removed) > 0 {
		d.log.Info("removed what led to other hosts of a cluster", "removed", removed)
	}
}

// setDevices notes the devices with what was planned for them. They close at the stop.
func (d *daemon) setDevices(plan []tun.Config, devices []tun.Device, offload tun.Offload) {
	d.offload = offload
	d.devices = &liveDevices{open: d.inherited.opener(d.privileged.Open), offload: offload, workers: d.engine.Workers(), steer: d.steer(), warn: d.warn, remove: d.privileged.RemoveNamespace}
	for i := range plan {
		d.devices.list = append(d.devices.list, liveDevice{plan[i], devices[i]})
	}
	d.onStop(d.devices.close)
}

// prober sends health probes from the platform's attachment, and knows what other hosts of the cluster say of their
// backends; nil without either.
func (d *daemon) prober() *probe.Prober {
	list := d.engine.Snapshot().Probes()
	sends := slices.ContainsFunc(d.engine.Snapshot().Attachments, func(a *topology.Attachment) bool { return a.Kind == topology.Platform })
	shared := d.config.Cluster != nil
	if sends || shared {
		o := probe.Options{Faults: d.engine.Faults(), Shared: shared, Changed: func() { d.member.healthChanged() }, Log: d.log}
		if sends {
			o.Socket = d.privileged.Probe
		}
		if d.inherited.kept != nil {
			o.Memory = d.inherited.kept.Backends()
		}
		p := probe.New(o)
		p.Follow(list)
		return p
	}
	if len(list) > 0 {
		d.log.Warn("no attachment is platform: true: no health probe is sent, every backend counts as up", "backends", len(list))
	}
	return nil
}

// servePlatform answers DNS and IMDS where the platform's attachment asks for it, until the daemon stops.
func (d *daemon) servePlatform(ctx context.Context) error {
	a := d.config.platform()
	if a == nil || !a.PlatformServices {
		return nil
	}
	const dns = 53
	sockets, err := d.privileged.Services()
	if err != nil {
		return err
	}
	o := platform.Options{Sockets: sockets, Policy: func() *policy.Set { return d.engine.Snapshot().Policy }, MAC: d.interception.mac, Faults: d.engine.Faults(), Log: d.log}
	for _, f := range a.DNSForwarders {
		o.Forwarders = append(o.Forwarders, netip.AddrPortFrom(f.Addr, dns))
	}
	stop, err := platform.Serve(ctx, o)
	if err != nil {
		return err
	}
	d.onStop(func() error { stop(); return nil })
	return nil
}

func (d *daemon) onStop(release func() error) { d.releases = append(d.releases, release) }

// stop gives back what start took, the last first.
func (d *daemon) stop() error {
	errs := []error{d.stopCarrying()}
	for _, release := range slices.Backward(d.releases) {
		errs = append(errs, release())
	}
	d.releases = nil
	return errors.Join(errs...)
}

// serve carries packets and answers until ctx ends or something fails.
func (d *daemon) serve(ctx context.Context) error {
	pages, err := d.console()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.privileged.Wait(ctx) })
	group.Go(func() error { return d.interception.follow(ctx) })
	group.Go(func() error { return d.carries(ctx) })
	if d.recorder != nil {
		group.Go(func() error { return d.recorder.Run(ctx) })
	}
	if d.probes != nil {
		group.Go(func() error { d.probes.Run(ctx); return nil })
	}
	if d.history != nil {
		group.Go(func() error { return d.history.Run(ctx) })
	}
	d.responders.begin(d.config, func(run func(context.Context)) { group.Go(func() error { run(ctx); return nil }) })
	server := control.NewServer(d.service)
	group.Go(func() error { return server.Serve(d.control) })
	group.Go(func() error { return d.serveRemote(server) })
	var scraped *metrics.Server
	if d.metrics != nil {
		gatherer := metrics.NewGatherer(metrics.Options{Engine: d.engine, Version: version, Reloads: d.reloads, Also: d.collectors(), Carrier: d.inherited.carrier()})
		scraped = metrics.NewServer(metrics.ServerOptions{
			Gatherer: gatherer, Unready: d.service.Unready, Version: version, Log: d.log,
			Profiles: d.config.Metrics.Pprof, Console: pages, WebConfig: d.config.Metrics.WebConfig,
		})
		group.Go(func() error { return scraped.Serve(d.metrics) })
	}
	group.Go(func() error {
		<-ctx.Done()
		if d.next == nil { // systemd ends whoever comes after STOPPING=1, and takes no MAINPID any more
			d.notify(notifyStopping)
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
		defer cancel()
		err := server.Shutdown(late)
		if scraped != nil {
			err = errors.Join(err, scraped.Shutdown(late))
		}
		return err
	})
	if n := d.config.DenyLog.PerSecond; n > 0 {
		group.Go(func() error { return denylog.Run(ctx, d.engine, d.log, n) })
	}
	group.Go(func() error { return d.reloadOnSignal(ctx) })
	group.Go(func() error { return d.watchFiles(ctx) })
	group.Go(func() error { return d.awaitConfirmation(ctx) })
	group.Go(func() error { return d.watchdog(ctx) })
	group.Go(func() error { return d.member.run(ctx) })

	d.serving.Store(true)
	d.log.Info("ready", "attachments", len(d.config.Attachments), "workers", d.engine.Workers(), "offload", d.offload,
		"control", d.config.Control.Socket, "metrics", d.metricsAddress())
	d.notify(notifyReady)
	err = group.Wait()
	if failed := d.stopCarrying(); err == nil { // nobody else needs packets any more
		err = failed
	}
	return err
}

// metricsAddress is the address that the listener got; empty when metrics are off.
func (d *daemon) metricsAddress() string {
	if d.metrics == nil {
		return ""
	}
	return d.metrics.Addr().String()
}

func (d *daemon) reloads() metrics.Reloads {
	r := d.service.Reloads()
	return metrics.Reloads{
		Succeeded: r.Succeeded, Failed: r.Failed, LastRefused: r.LastError != "", LastSuccess: r.Loaded,
		ServiceTagsWritten: d.service.ServiceTagsWritten(),
		LastDuration:       time.Duration(r.LastMilliseconds * float64(time.Millisecond)),
	}
}

// engineOptions translates the configuration.
func (c *Config) engineOptions(log *slog.Logger) dataplane.Options {
	t := &c.Timeouts
	options := c.topology()
	return dataplane.Options{
		Attachments: c.specs(),
		Room:        dataplane.MaxAttachments,
		Topology:    options,
		Workers:     c.workers(),
		Flows: conntrack.Options{
			Max: c.Flows.Max, MaxPerZone: c.Flows.MaxPerNetworkInterface,
			NewPerSecond: c.Flows.NewPerSecond, TCPStrict: c.TCPStrict, WindowsOff: c.TCPWindow == windowOff,
			Timeouts: conntrack.Timeouts{
				TCPSyn: time.Duration(t.TCPSyn), TCPEstablished: time.Duration(t.TCPEstablished),
				TCPClosing: time.Duration(t.TCPClosing), TCPTimeWait: time.Duration(t.TCPTimeWait),
				TCPReset: time.Duration(t.TCPReset), UDPOneWay: time.Duration(t.UDPOneWay),
				UDPTwoWay: time.Duration(t.UDPTwoWay), ICMP: time.Duration(t.ICMP), Other: time.Duration(t.Other),
			},
		},
		TranslationIdle: time.Duration(t.Translation),
		Subscription:    c.Platform.subscription(),

		Fragments: fragment.Options{Max: c.Fragments.Max, Hold: c.Fragments.Hold, Lifetime: time.Duration(t.Fragment)},
		Log:       log,
	}
}

// workers is how many carry packets. Each has a queue of every device.
func (c *Config) workers() int {
	if c.Workers != 0 {
		return c.Workers
	}
	return min(runtime.GOMAXPROCS(0), tun.MaxQueues)
}

// alreadyRunning says plainly that another daemon holds the state directory.
func alreadyRunning(err error) error {
	var running *tun.RunningError
	if !errors.As(err, &running) {
		return err
	}
	if running.PID == 0 {
		return fmt.Errorf("nsgd is already running: it holds %s", running.Dir)
	}
	return fmt.Errorf("nsgd is already running (pid %d): it holds %s", running.PID, running.Dir)
}
