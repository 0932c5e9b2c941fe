package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"go.yaml.in/yaml/v3"
)

// live is the configuration of a daemon that runs. It is what a reload reads, and what nsgctl attach and detach have
// changed since. The service makes one call at a time.
type live struct {
	ctx          context.Context // ends the evaluation of templates
	path         string
	log          *slog.Logger
	file         *Config              // as last read
	files        *inspect.PolicyFiles // that it names; nil: not known
	tried        *loaded              // the cluster's generation that was read last; nil: none was
	running      *Config              // file, with the edits
	edits        []edit
	kept         keptEdits // where the next process finds edits
	devices      *liveDevices
	interception *interception
	responders   *responders
	snapshot     func() *topology.Snapshot // that decides
	// share is what a cluster has given, and member the daemon's part in it; nil: there is none.
	share  share
	member *member
}

// liveKeys are the keys that a reload may change. Every other key of Config is fixed while the daemon runs.
var liveKeys = []string{"policy", "serviceTags", "templates", "allowPartial", "attachments", "azureQuirks", "defaultOutboundAddress", "platform"}

var _ inspect.Configuration = (*live)(nil)

// Read implements inspect.Configuration.
func (l *live) Read(e inspect.Edit) (*inspect.Target, error) {
	if e.Attach == "" && e.Detach == "" {
		return l.reload(e)
	}
	set := l.snapshot().Policy
	edits, err := l.edited(e, set)
	if err != nil {
		return nil, err
	}
	c := withEdits(l.file, edits, set)
	if err := c.checkAttachments(); err != nil {
		return nil, err
	}
	shared, err := l.shared(inspect.Edit{})
	if err != nil {
		return nil, err
	}
	has := c.having(shared, set)
	if err := l.fixed(has); err != nil {
		return nil, err
	}
	return l.target(has, set, nil, func() { l.setEdits(edits); l.member.wants(c, set) }), nil
}

// Running implements inspect.Configuration.
func (l *live) Running() *inspect.Target {
	file, files, edits, shared, set := l.file, l.files, l.edits, l.share, l.snapshot().Policy
	return l.target(l.running, set, nil, func() {
		l.file, l.files, l.share = file, files, shared
		l.setEdits(edits)
		l.member.wants(withEdits(file, edits, set), set)
	})
}

// reload reads the file, or another one to ask about.
func (l *live) reload(e inspect.Edit) (*inspect.Target, error) {
	path, was := l.path, (*loaded)(nil)
	if l.files != nil && !e.Afresh {
		was = &loaded{file: l.file, files: l.files}
	}
	if e.File != "" {
		path, was = e.File, nil
	}
	shared, err := l.shared(e)
	if err != nil {
		return nil, err
	}
	all, err := l.load(path, e, was, shared)
	if err != nil {
		return nil, err
	}
	if err := checkFlowLogs(path, all); err != nil {
		return nil, err
	}
	edits := slices.Clone(l.edits)
	if !ofCluster(e) {
		edits = slices.DeleteFunc(edits, func(e edit) bool { return !e.Keep })
	}
	whole := withEdits(all.file, edits, all.policy)
	c := whole.having(shared, all.policy)
	if err := l.fixed(c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l.target(c, all.policy, all.files, func() {
		l.file, l.files, l.share = all.file, all.files, *shared
		l.setEdits(edits)
		l.member.wants(whole, all.policy)
	}), nil
}

// ofCluster says that the cluster asks, and nobody here.
func ofCluster(e inspect.Edit) bool {
	return e.Generation != "" || e.NetworkInterfaces != nil || e.Placed
}

// load reads the file. What a generation consists of never changes, so it is read once: when it is tried. When the cluster asks, the configuration stays that of the last reload: a file that somebody is
// editing must not keep this host from what the others do.
func (l *live) load(path string, e inspect.Edit, was *loaded, shared *share) (*loaded, error) {
	if !ofCluster(e) {
		return loadPolicy(l.ctx, path, was, shared)
	}
	c := *l.file
	if e.Generation == "" {
		if was != nil && l.share.generation != nil {
			was.policy = l.snapshot().Policy
		}
		return c.load(l.ctx, time.Now(), was, shared)
	}
	all, err := c.load(l.ctx, time.Now(), cmp.Or(l.tried, was), shared)
	if err == nil {
		l.tried = &loaded{file: all.file, files: all.files, policy: all.policy}
	}
	return all, err
}

// shared is what the cluster gives once an edit is made.
func (l *live) shared(e inspect.Edit) (*share, error) {
	next := l.share
	if e.Generation != "" {
		if next.generation = l.member.generation(e.Generation); next.generation == nil {
			return nil, fmt.Errorf("generation in %s: it is not known", e.Generation)
		}
	}
	if e.NetworkInterfaces != nil {
		next.nics = e.NetworkInterfaces
	}
	next.all = next.all || e.All
	next.join = l.member.joins()
	return &next, nil
}

// setEdits makes edits those that the next process finds, too.
func (l *live) setEdits(edits []edit) {
	l.edits = edits
	if err := l.kept.set(edits); err != nil {
		l.log.Error("the next process will not know of nsgctl attach and detach", "error", err)
	}
}

func (l *live) target(c *Config, set *policy.Set, files *inspect.PolicyFiles, done func()) *inspect.Target {
	return &inspect.Target{
		Wanted: dataplane.Wanted{Policy: set, Attachments: c.specs(), Topology: c.topology(), Subscription: c.Platform.subscription()},
		Files:  files, Places: c.places(),
		Equip: func(to []*topology.Attachment, set *policy.Set, try bool) (*inspect.Equipment, error) {
			plan, err := planDevices(c, set, to)
			if err != nil || try {
				return nil, err
			}
			return l.equip(c, plan, to, set)
		},
		Done: func() {
			done()
			l.running = c
		},
	}
}

// equip closes the interfaces that are new, and makes the devices ready.
func (l *live) equip(c *Config, plan []tun.Config, to []*topology.Attachment, set *policy.Set) (*inspect.Equipment, error) {
	if err := l.interception.prepare(c, plan, set, to); err != nil {
		return nil, errors.Join(err, l.interception.undo())
	}
	e, err := l.devices.equip(plan)
	if err != nil {
		return nil, errors.Join(err, l.interception.undo())
	}
	undo, settle := e.Undo, e.Settle
	reopen, err := l.member.close(c, set, l.devices.opened(plan, e.Devices))
	if err != nil {
		return nil, errors.Join(err, reopen(), undo(), l.interception.undo())
	}
	e.Undo = func() error { return errors.Join(reopen(), undo(), l.interception.undo()) }
	e.Settle = func() error {
		l.responders.follow(c)
		return errors.Join(settle(), l.interception.settle(), l.member.settle(c, set))
	}
	return e, nil
}

// edited are the edits with one more.
func (l *live) edited(e inspect.Edit, set *policy.Set) ([]edit, error) {
	var one edit
	if e.Detach != "" {
		identity, err := l.attached(e.Detach)
		if err != nil {
			return nil, err
		}
		one = edit{Identity: identity, Keep: e.Keep}
	} else {
		a, err := parseAttachment(e.Attach)
		if err != nil {
			return nil, err
		}
		spec := a.spec()
		one = edit{Identity: spec.Identity(set), Attach: e.Attach, attach: a, Keep: e.Keep}
		if one.Identity != "" && index(l.running, one.Identity, set) >= 0 {
			return nil, fmt.Errorf("%s is attached already: detach it first", one.Identity)
		}
	}
	// The last word about an attachment holds; one that only an edit has attached leaves nothing behind.
	edits := slices.DeleteFunc(slices.Clone(l.edits), func(other edit) bool { return one.Identity != "" && other.Identity == one.Identity })
	if one.attach == nil && index(l.file, one.Identity, set) < 0 {
		return edits, nil
	}
	return append(edits, one), nil
}

// attached finds what is attached under a name.
func (l *live) attached(name string) (identity string, err error) {
	var all []string
	for _, a := range l.snapshot().Attachments {
		if a.Kind == topology.Vacant {
			continue
		}
		all = append(all, a.Name)
		if strings.EqualFold(a.Name, name) {
			return a.Identity(), nil
		}
	}
	slices.Sort(all)
	return "", fmt.Errorf("%q is not attached: attached are %s", name, strings.Join(all, ", "))
}

// index is where a configuration has an attachment, or -1.
func index(c *Config, identity string, set *policy.Set) int {
	return slices.IndexFunc(c.specs(), func(s topology.Spec) bool { return identity != "" && s.Identity(set) == identity })
}

// parseAttachment reads an attachment strictly.
func parseAttachment(text string) (*AttachmentConfig, error) {
	a := &AttachmentConfig{}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(a); err != nil {
		return nil, yamlFaults("attachment", err)
	}
	c := &Config{Attachments: []AttachmentConfig{*a}}
	c.completeAttachments()
	return &c.Attachments[0], nil
}

// fixed refuses what can't change while the daemon runs.
func (l *live) fixed(c *Config) error {
	var faults []error
	was, is := reflect.ValueOf(l.running).Elem(), reflect.ValueOf(c).Elem()
	for i := range was.NumField() {
		field := was.Type().Field(i)
		key := field.Tag.Get("yaml")
		if field.IsExported() && !slices.Contains(liveKeys, key) && !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			faults = append(faults, fmt.Errorf("%s: it can't change while the daemon runs: restart it", key))
		}
	}
	if old, next := l.running.platform(), c.platform(); !reflect.DeepEqual(old, next) {
		faults = append(faults, errors.New("attachments: the one with platform: true can't come, go or change while the daemon runs, because health probes go out there: restart it"))
	}
	type place struct{ netns, device string }
	places := map[place]int{}
	for j, b := range l.running.Attachments {
		places[place{b.Netns, b.Device}] = j
	}
	now, before := c.beforeInterfaces(), l.running.beforeInterfaces()
	for i, a := range c.Attachments {
		j, stays := places[place{a.Netns, a.Device}]
		if stays && l.running.Attachments[j].Create != a.Create {
			faults = append(faults, fmt.Errorf("attachments[%d].create: it can't change for a device that stays: restart the daemon", i))
		}
		if stays && now[i] != before[j] {
			faults = append(faults, fmt.Errorf("attachments[%d].device: %s stays, and would stand beside interfaces before which nsgd stands, or no longer: restart the daemon", i, a.Device))
		}
	}
	return errors.Join(faults...)
}

// platform is the platform's attachment, or nil.
func (c *Config) platform() *AttachmentConfig {
	for i := range c.Attachments {
		if c.Attachments[i].Platform {
			return &c.Attachments[i]
		}
	}
	return nil
}
