package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// Configuration is what the daemon is to be, and the devices of its attachments. A Service makes one call at a time.
type Configuration interface {
	// Read says what an edit would make of the daemon. It refuses by name what can't change while the daemon runs.
	// Nothing changes yet.
	Read(Edit) (*Target, error)
	// Running leads back to what the daemon is now, whatever it becomes. Its Files are not set.
	Running() *Target
}

// Edit is a change of the configuration. The zero value reads its file again.
type Edit struct {
	// File is another file to read in its place; only to ask.
	File string
	// Afresh reads all of the file's policy, and leaves what is remembered of the one in force as it is.
	Afresh bool
	// Attach is an attachment, as the configuration has it, in YAML or JSON.
	Attach string
	// Detach names an attachment, as Status does.
	Detach string
	// Generation is the folder of a cluster's generation to take in place of the one in force; empty: that stays.
	Generation string
	// NetworkInterfaces are the ids of those to attach, where a cluster decides about it; nil: those that are. With All,
	// all are.
	NetworkInterfaces []string
	All               bool
	// Placed says that other hosts of the cluster have changed, which Generation and NetworkInterfaces say too: what Attach
	// and Detach have done stays then.
	Placed bool
	// Keep keeps what Attach or Detach do when the file is read again; else that takes it back.
	Keep bool
	// Cause says who attaches or detaches, for the log.
	Cause string
}

// Target is what an edit makes of the daemon.
type Target struct {
	dataplane.Wanted
	// Files are those that the policy was loaded from; nil: it is the one that runs.
	Files *PolicyFiles
	// Places by wanted attachment.
	Places []Place
	// Equip makes the devices of the attachments ready, for what stands behind them then. With try it only says what
	// is against it.
	Equip func(to []*topology.Attachment, set *policy.Set, try bool) (*Equipment, error)
	// Done notes that the target is reached.
	Done func()
}

// Equipment are devices that are ready.
type Equipment struct {
	// Devices by wanted attachment.
	Devices []tun.Device
	// Undo takes back what Equip has done, Settle does what is left once nobody uses the old devices.
	Undo, Settle func() error
}

// AttachmentChanges are the names of attachments that came, went or changed.
type AttachmentChanges struct {
	Attached []string `json:"attached"`
	Detached []string `json:"detached"`
	// Changed are NAME: WHAT.
	Changed []string `json:"changed"`
}

// Any reports that there is a change. Nil has none.
func (c *AttachmentChanges) Any() bool {
	return c != nil && len(c.Attached)+len(c.Detached)+len(c.Changed) > 0
}

// String is the changes in words.
func (c *AttachmentChanges) String() string {
	if c == nil { // in a cluster an attachment comes once this host has the network interface
		return "nothing changes yet"
	}
	var words []string
	for _, list := range []struct {
		verb  string
		names []string
	}{{"attached", c.Attached}, {"detached", c.Detached}, {"changed", c.Changed}} {
		if len(list.names) > 0 {
			words = append(words, list.verb+" "+strings.Join(list.names, ", "))
		}
	}
	return strings.Join(words, "; ")
}

// ErrFixed says that attachments can't change: the daemon has no configuration.
var ErrFixed = errors.New("the attachments of this daemon can't change")

// Attach attaches what an edit says, or detaches it. On any error everything stays as it is. All that it logs has an id, and
// so has a *ReloadError.
func (s *Service) Attach(e Edit) (*Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.options.Configuration == nil {
		return nil, ErrFixed
	}
	id := newReloadID()
	s.log = s.options.Log.With("change", id)
	defer func() { s.log = s.options.Log }()
	s.log.Info("change of attachments begins", "cause", e.Cause)
	err := s.refuseChange()
	var reloaded *Reloaded
	if err == nil {
		reloaded, err = s.rearrange(e)
	}
	if err != nil {
		s.log.Error("attachments stay as they are", "error", err)
		return nil, &ReloadError{id, err}
	}
	reloaded.ID = id
	s.log.Info("attachments", "changes", reloaded.Attachments.String(), "generation", reloaded.Generation)
	return reloaded, nil
}

// Check says what a reload of a configuration file would change, or why it would be refused.
func (s *Service) Check(file string) (*AttachmentChanges, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.options.Configuration == nil {
		return nil, ErrFixed
	}
	_, _, changes, err := s.try(Edit{File: file})
	return changes, err
}

// Try says why an edit would be refused. Nothing changes.
func (s *Service) Try(e Edit) error {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.options.Configuration == nil {
		return ErrFixed
	}
	_, _, _, err := s.try(e)
	return err
}

// try finds out what an edit would make of the daemon, and changes nothing. loading is held.
func (s *Service) try(e Edit) (*Target, *topology.Snapshot, *AttachmentChanges, error) {
	target, err := s.options.Configuration.Read(e)
	if err != nil {
		return nil, nil, nil, err
	}
	target.Try = true
	a, err := s.options.Engine.Arrange(&target.Wanted)
	if err != nil {
		return nil, nil, nil, err
	}
	if _, err := target.Equip(a.Attachments(a.Snapshot), target.Policy, true); err != nil {
		return nil, nil, nil, err
	}
	return target, a.Snapshot, s.changes(a, target.Places), nil
}

// rearrange makes the daemon what an edit says. loading is held.
func (s *Service) rearrange(e Edit) (*Reloaded, error) {
	target, err := s.options.Configuration.Read(e)
	if err != nil {
		return nil, err
	}
	return s.reach(target)
}

// reach makes the daemon what a target says. loading is held.
func (s *Service) reach(target *Target) (*Reloaded, error) {
	engine := s.options.Engine
	before := engine.Snapshot().Policy
	a, err := engine.Arrange(&target.Wanted)
	if err != nil {
		return nil, err
	}
	if s.handover != nil {
		a.Flows = func() { s.handover.Flows(a.Snapshot) }
	}
	changes := s.changes(a, target.Places)
	var made *Equipment
	err = engine.Rearrange(a, func(next *topology.Snapshot) (devices []tun.Device, err error) {
		if err := s.mayCut(next); err != nil {
			return nil, err
		}
		if made, err = target.Equip(a.Attachments(a.Snapshot), target.Policy, false); err != nil {
			return nil, err
		}
		if s.handover != nil {
			if err = s.handover.Ready(); err != nil {
				return nil, err
			}
		}
		return made.Devices, nil
	}, func(next *topology.Snapshot) {
		if s.options.Probes != nil {
			s.options.Probes.Follow(next.Probes())
		}
		s.setPlaces(a, target.Places)
	})
	if err != nil && made != nil {
		err = errors.Join(err, made.Undo())
	}
	if err != nil {
		return nil, err
	}
	if s.handover != nil && s.handover.Carried != nil {
		s.handover.Carried()
	}
	target.Done()
	reloaded := s.loaded(target.Files, target.Policy, before, a.Snapshot)
	if changes.Any() {
		reloaded.Attachments = changes
	}
	if err := made.Settle(); err != nil { // what is in force is so
		s.log.Error("attachments changed, and something is left over", "error", err)
		reloaded.Left = err.Error()
	}
	s.askBackends()
	return reloaded, nil
}

// changes compares an arrangement with what is attached now.
func (s *Service) changes(a *dataplane.Arrangement, places []Place) *AttachmentChanges {
	c := &AttachmentChanges{Attached: []string{}, Detached: []string{}, Changed: []string{}}
	now, next := s.Snapshot(), a.Snapshot
	for i, slot := range a.Slots {
		to := next.Attachments[slot]
		if a.Comes(slot) {
			c.Attached = append(c.Attached, to.Name)
			continue
		}
		was := s.place(slot)
		if what := was.differs(&places[i], now.Attachments[slot], to); what != "" {
			c.Changed = append(c.Changed, to.Name+": "+what)
		}
	}
	for slot, attachment := range now.Attachments {
		if a.Goes(slot) {
			c.Detached = append(c.Detached, attachment.Name)
		}
	}
	return c
}

// differs says what is new at a place.
func (p *Place) differs(next *Place, was, is *topology.Attachment) string {
	var words []string
	say := func(what string, old, now any) {
		if o, n := fmt.Sprint(old), fmt.Sprint(now); o != n {
			words = append(words, fmt.Sprintf("%s %s to %s", what, o, n))
		}
	}
	say("device", p.String(), next.String())
	say("mtu", p.MTU, next.MTU)
	say("addresses", DeviceAddresses(was, p.Addresses), DeviceAddresses(is, next.Addresses))
	say("prefixes", p.Prefixes, next.Prefixes)
	say("dhcp", p.DHCP, next.DHCP)
	return strings.Join(words, ", ")
}

// String is the device, and its namespace behind @.
func (p *Place) String() string {
	if p.Namespace == "" {
		return p.Device
	}
	return p.Device + "@" + p.Namespace
}

// place is where the attachment of a slot is.
func (s *Service) place(slot int) Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot >= len(s.places) {
		return Place{}
	}
	return s.places[slot]
}

// setPlaces notes where the attachments of an arrangement are.
func (s *Service) setPlaces(a *dataplane.Arrangement, wanted []Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	places := slices.Clone(s.places)
	for len(places) < len(a.Snapshot.Attachments) {
		places = append(places, Place{})
	}
	for i, slot := range a.Slots {
		places[slot] = wanted[i]
	}
	s.places = places
}
