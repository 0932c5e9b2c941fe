package inspect

import (
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
	// LastMilliseconds is how long it took.
	LastMilliseconds float64 `json:"lastMilliseconds,omitempty"`
	// Loaded is when the policy in force was loaded, by a reload or at the start.
	Loaded time.Time `json:"loaded"`
	// LastError is why the last reload was refused; absent when it was not.
	LastError string `json:"lastError,omitempty"`
}

// Reloaded is the result of a reload.
type Reloaded struct {
	Generation uint64 `json:"generation"`
	PolicyCounts
	// ServiceTagChanges is what a new service tag file changes for rules that named the tag
	// before; absent when nothing changed.
	ServiceTagChanges *TagChanges `json:"serviceTagChanges,omitempty"`
	// Attachments are those that came, went or changed; absent when all are as they were.
	Attachments *AttachmentChanges `json:"attachments,omitempty"`
	// Left says what could not be cleared away behind a change of attachments; absent when nothing is left.
	Left string `json:"left,omitempty"`
}

// Reloads says how reloads went so far.
func (s *Service) Reloads() Reloads {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads
}

// Reload reads the configuration and its policy, and swaps them whole. Flows and counters stay, except for the flows of
// attachments that are gone. On any error everything stays as it is.
func (s *Service) Reload() (*Reloaded, error) {
	s.loading.Lock()
	defer s.loading.Unlock()
	done := func(error) {}
	if s.options.Reloading != nil {
		done = s.options.Reloading()
	}
	begun := s.options.Now()
	reloaded, err := s.reload()
	s.record(begun, err)
	done(err)
	if err != nil {
		s.options.Log.Error("reload refused, the running policy stays", "error", err)
		return nil, err
	}
	s.warnLeftOut()
	s.options.Log.Info("reloaded", "generation", reloaded.Generation,
		"networkSecurityGroups", reloaded.NetworkSecurityGroups, "securityRules", reloaded.SecurityRules)
	if c := reloaded.Attachments; c != nil {
		s.options.Log.Info("attachments", "changes", c.String())
	}
	if c := reloaded.ServiceTagChanges; c != nil {
		s.options.Log.Info("service tags changed for rules", "from", c.Old.ChangeNumber, "to", c.New.ChangeNumber,
			"tags", len(c.Changed), "rules", len(c.Rules), "changes", c.summary())
	}
	return reloaded, nil
}

func (s *Service) reload() (*Reloaded, error) {
	if s.options.Configuration != nil {
		return s.rearrange(Edit{})
	}
	files := s.policyFiles()
	set, err := files.Load()
	if err != nil {
		return nil, err
	}
	engine := s.options.Engine
	before := engine.Snapshot().Policy
	next, err := engine.Prepare(set)
	if err != nil {
		return nil, err
	}
	if err := engine.Swap(next, s.makeWay); err != nil {
		return nil, err
	}
	return s.loaded(files, set, before, next), nil
}

// loaded notes that a policy is in force that was read from files; nil: it is the one from before. loading is held.
func (s *Service) loaded(files *PolicyFiles, set, before *policy.Set, next *topology.Snapshot) *Reloaded {
	reloaded := &Reloaded{Generation: next.Generation, PolicyCounts: CountPolicy(set)}
	if files == nil {
		return reloaded
	}
	for _, warning := range files.Warnings() {
		s.options.Log.Warn("policy", "warning", warning)
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
	if err := s.readdress(next); err != nil {
		return err
	}
	if s.options.Probes != nil {
		s.options.Probes.Follow(next.Probes())
	}
	return nil
}

func (s *Service) record(begun time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.options.Now()
	s.reloads.Last, s.reloads.LastError = &now, ""
	s.reloads.LastMilliseconds = float64(now.Sub(begun)) / float64(time.Millisecond)
	if err != nil {
		s.reloads.Failed++
		s.reloads.LastError = err.Error()
		return
	}
	s.reloads.Succeeded++
	s.reloads.Loaded = now
}

// warnLeftOut logs what a partial policy leaves out.
func (s *Service) warnLeftOut() {
	for _, fault := range s.policyFiles().LeftOut() {
		s.options.Log.Warn("left out of the policy", "reason", fault.Error())
	}
}
