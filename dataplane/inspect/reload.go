package inspect

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"time"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Reloads counts reloads and says how the last one went.
type Reloads struct {
	Succeeded uint64 `json:"succeeded"`
	Failed    uint64 `json:"failed"`
	// Last is when the last reload ended; absent when there was none.
	Last *time.Time `json:"last,omitempty"`
	// LastID is its id in the log, LastCause who or what asked for it: a user, a certificate's names, SIGHUP, watch, or no confirmation.
	LastID    string `json:"lastId,omitempty"`
	LastCause string `json:"lastCause,omitempty"`
	// LastMilliseconds is how long it took.
	LastMilliseconds float64 `json:"lastMilliseconds,omitempty"`
	// Loaded is when the policy in force was loaded, by a reload or at the start.
	Loaded time.Time `json:"loaded"`
	// LastError is why the last reload was refused; absent when it was not.
	LastError string `json:"lastError,omitempty"`
	// ConfirmBy is when the last reload is taken back, unless Confirm comes; absent when nothing waits for it.
	ConfirmBy *time.Time `json:"confirmBy,omitempty"`
}

// Reloaded is the result of a reload.
type Reloaded struct {
	// ID is the reload's in the log, or that of attach or detach.
	ID         string `json:"id,omitempty"`
	Generation uint64 `json:"generation"`
	PolicyCounts
	// ServiceTagChanges is what a new service tag file changes for rules that named the tag
	// before; absent when nothing changed.
	ServiceTagChanges *TagChanges `json:"serviceTagChanges,omitempty"`
	// Attachments are those that came, went or changed; absent when all are as they were.
	Attachments *AttachmentChanges `json:"attachments,omitempty"`
	// Left says what could not be cleared away behind a change of attachments; absent when nothing is left.
	Left string `json:"left,omitempty"`
	// ConfirmBy is when the reload is taken back, unless a confirmation comes; absent when it needs none.
	ConfirmBy *time.Time `json:"confirmBy,omitempty"`
}

// Reloads says how reloads went so far.
func (s *Service) Reloads() Reloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

// ReloadRequest says how to reload.
type ReloadRequest struct {
	// Cause says who asks: see Reloads.LastCause.
	Cause string
	// Edit is what to make of the configuration besides reading it again; with Generation, NetworkInterfaces or Placed alone.
	Edit Edit
	// ConfirmWithin takes the reload back after so long, unless Confirm comes; 0: it stays.
	ConfirmWithin time.Duration
	// Handover takes flows along of a network interface that comes or goes; nil: none does.
	Handover *Handover
	// MaxCut refuses a policy that would cut more live flows; nil: it may cut any number. Flows that begin while they are
	// counted are not among them.
	MaxCut *int
}

// Handover is what a reload does besides for a network interface that another host hands over, or gets.
type Handover struct {
	// Ready is called when nothing else can refuse any more, and may.
	Ready func() error
	// Flows takes flows along: see dataplane.Arrangement.
	Flows func(next *topology.Snapshot)
	// Carried is called when the new arrangement decides, before what is left over is cleared away; nil: nobody is told.
	Carried func()
}

// Reload reads the configuration and its policy, and swaps them whole. Flows and counters stay, except for the flows of
// attachments that are gone. On any error everything stays as it is, and the error is a *ReloadError.
func (s *Service) Reload(q ReloadRequest) (*Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	return s.change(q, func(afresh bool) (*Reloaded, error) {
		q.Edit.Afresh = afresh
		s.handover = q.Handover
		defer func() { s.handover = nil }()
		return s.reload(q.Edit)
	})
}

// change makes what load loads the policy in force, as a request says. loading is held.
func (s *Service) change(q ReloadRequest, load func(afresh bool) (*Reloaded, error)) (*Reloaded, error) {
	err := s.refuseChange()
	b := s.book(q.Cause, err == nil)
	s.maxCut = q.MaxCut
	defer func() { s.maxCut = nil }()
	var w *unconfirmed
	if err == nil && q.ConfirmWithin > 0 {
		w = s.unconfirmed(b, q.ConfirmWithin)
	}
	var reloaded *Reloaded
	if err == nil {
		reloaded, err = load(w != nil)
	}
	b.end(err)
	if err != nil {
		b.log.Error("reload refused, the running policy stays", "error", err)
		return nil, &ReloadError{b.id, err}
	}
	reloaded.ID = b.id
	s.warnLeftOut(b.log)
	b.tell(reloaded)
	if w != nil {
		reloaded.ConfirmBy = s.wait(w)
	}
	return reloaded, nil
}

// booking is a reload under way. All that it logs has its id.
type booking struct {
	id      string
	cause   string
	log     *slog.Logger
	service *Service
	begun   time.Time
	done    func(error)
}

// book begins a reload, or notes one that is refused before it begins. loading is held.
func (s *Service) book(cause string, begins bool) *booking {
	b := &booking{id: newReloadID(), cause: cause, service: s, begun: s.options.Now(), done: func(error) {}}
	b.log = s.options.Log.With("reload", b.id)
	if begins && s.options.Reloading != nil { // a keeper would have a standby read what nobody else reads
		b.done = s.options.Reloading()
	}
	b.log.Info("reload begins", "cause", cause)
	s.log = b.log
	return b
}

// newReloadID is one that no log has twice.
func newReloadID() string {
	var id [8]byte
	rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// end notes how a reload went.
func (b *booking) end(err error) {
	b.service.log = b.service.options.Log
	b.service.record(b, err)
	b.done(err)
}

// tell logs what a reload has changed.
func (b *booking) tell(r *Reloaded) {
	b.log.Info("reloaded", "generation", r.Generation, "networkSecurityGroups", r.NetworkSecurityGroups, "securityRules", r.SecurityRules)
	if c := r.Attachments; c != nil {
		b.log.Info("attachments", "changes", c.String())
	}
	if c := r.ServiceTagChanges; c != nil {
		b.log.Info("service tags changed for rules", "from", c.Old.ChangeNumber, "to", c.New.ChangeNumber,
			"tags", len(c.Changed), "rules", len(c.Rules), "changes", c.summary())
	}
}

// ReloadError is why a reload, or a change of attachments, was refused.
type ReloadError struct {
	// ID is its id in the log.
	ID  string
	err error
}

// Error says why.
func (e *ReloadError) Error() string { return e.err.Error() }

// Unwrap is for errors.As.
func (e *ReloadError) Unwrap() error { return e.err }

// reload reads and swaps. Read afresh, what is remembered of the files in force stays true of them. loading is held.
func (s *Service) reload(e Edit) (*Reloaded, error) {
	if s.options.Configuration != nil {
		return s.rearrange(e)
	}
	files := s.policyFiles()
	if e.Afresh {
		files = files.again(nil)
	}
	set, err := files.Load()
	if err != nil {
		return nil, err
	}
	return s.swap(files, set)
}

// swap makes a policy the one in force. loading is held.
func (s *Service) swap(files *PolicyFiles, set *policy.Set) (*Reloaded, error) {
	engine := s.options.Engine
	before := engine.Snapshot().Policy
	next, err := engine.Prepare(set)
	if err != nil {
		return nil, err
	}
	if err := engine.Swap(next, s.makeWay); err != nil {
		return nil, err
	}
	s.askBackends()
	return s.loaded(files, set, before, next), nil
}

// askBackends has new backends asked, now that all that leads to them is there.
func (s *Service) askBackends() {
	if s.options.Probes != nil {
		s.options.Probes.Begin()
	}
}

// loaded notes that a policy is in force that was read from files; nil: it is the one from before. loading is held.
func (s *Service) loaded(files *PolicyFiles, set, before *policy.Set, next *topology.Snapshot) *Reloaded {
	reloaded := &Reloaded{Generation: next.Generation, PolicyCounts: CountPolicy(set)}
	s.mu.Lock()
	s.earlier.follow(next, s.options.Earlier)
	s.mu.Unlock()
	if files == nil {
		return reloaded
	}
	for _, warning := range files.Warnings() {
		s.log.Warn("policy", "warning", warning)
	}
	newTags := files.edition()
	reloaded.ServiceTagChanges = reloadChanges(before, set, s.serviceTags(), newTags)
	s.tagFile = files.reader.ServiceTags()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edition, s.written, s.files = newTags, files.tagsWritten(), files
	return reloaded
}

// makeWay does what must be done before the next snapshot decides about packets: devices have
// its addresses, and a backend that is new is down until it has answered its probe.
func (s *Service) makeWay(next *topology.Snapshot) error {
	if err := s.mayCut(next); err != nil {
		return err
	}
	if err := s.readdress(next); err != nil {
		return err
	}
	if s.options.Probes != nil {
		s.options.Probes.Follow(next.Probes())
	}
	return nil
}

func (s *Service) record(b *booking, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.reloads.Last, s.reloads.LastID, s.reloads.LastCause, s.reloads.LastError = &now, b.id, b.cause, ""
	s.reloads.LastMilliseconds = float64(now.Sub(b.begun)) / float64(time.Millisecond)
	defer s.note(b, err)
	if err != nil {
		s.reloads.Failed++
		s.reloads.LastError = err.Error()
		return
	}
	s.reloads.Succeeded++
	s.reloads.Loaded = now
}

// warnLeftOut logs what a partial policy leaves out.
func (s *Service) warnLeftOut(log *slog.Logger) {
	for _, fault := range s.policyFiles().LeftOut() {
		log.Warn("left out of the policy", "reason", fault.Error())
	}
}
