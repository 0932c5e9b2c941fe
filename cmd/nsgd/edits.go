package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go.yaml.in/yaml/v3"
)

// edit is one change of the attachments since the file was read.
type edit struct {
	Identity string // of what is attached or detached
	// Attach is the attachment as nsgctl has sent it; empty: it is detached.
	Attach string `json:",omitempty"`
	Keep   bool   `json:",omitempty"`

	attach *AttachmentConfig // Attach, read; nil: it is detached
}

// keptEdits are the edits that the next process finds. Without a store they end with this one.
type keptEdits struct{ store *continuity.Store }

// set keeps edits.
func (k keptEdits) set(edits []edit) error {
	if k.store == nil {
		return nil
	}
	if len(edits) == 0 {
		k.store.SetEdits(nil)
		return nil
	}
	text, err := json.Marshal(edits)
	if err == nil {
		k.store.SetEdits(text)
	}
	return err
}

// find reads the edits that the last process has kept. Those that this version can't read are left out, and told as faults.
func (k keptEdits) find() (edits []edit, faults []error) {
	if k.store == nil || len(k.store.Edits()) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(k.store.Edits(), &edits); err != nil {
		return nil, []error{err}
	}
	edits = slices.DeleteFunc(edits, func(e edit) bool {
		if e.Attach == "" {
			return false
		}
		if _, err := parseAttachment(e.Attach); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", e.Identity, err))
			return true
		}
		return false
	})
	for i := range edits {
		if edits[i].Attach != "" {
			edits[i].attach, _ = parseAttachment(edits[i].Attach) // was just read
		}
	}
	return edits, faults
}

// resumeEdits makes the edits of the last process those of this one, as far as they fit the configuration and the policy.
// It changes all accordingly.
func (d *daemon) resumeEdits(all *loaded) error {
	kept := keptEdits{d.inherited.kept}
	edits, faults := kept.find()
	d.edits = nil
	if config, snapshot, err := all.edited(edits); err == nil {
		d.edits, d.config, all.snapshot = edits, config, snapshot
	} else {
		for _, one := range edits {
			config, snapshot, err := all.edited(append(d.edits, one))
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", one.Identity, err))
				continue
			}
			d.edits, d.config, all.snapshot = append(d.edits, one), config, snapshot
		}
	}
	for _, err := range faults {
		d.log.Error("a change of nsgctl attach or detach is forgotten", "error", err)
	}
	for _, e := range d.edits {
		d.log.Info("goes on with a change of nsgctl attach or detach", "attachment", e.Identity, "attached", e.attach != nil, "keep", e.Keep)
	}
	if len(faults) == 0 {
		return nil
	}
	return kept.set(d.edits)
}

// forgetEdits has the next start go without edits, because this one has failed, maybe at them.
func (d *daemon) forgetEdits() error {
	if len(d.edits) == 0 {
		return nil
	}
	d.log.Error("the next start forgets the changes of nsgctl attach and detach: this one has failed, maybe by them", "changes", len(d.edits))
	return keptEdits{d.inherited.kept}.set(nil)
}

// edited is the configuration with edits, and what it makes of the policy.
func (all *loaded) edited(edits []edit) (*Config, *topology.Snapshot, error) {
	if len(edits) == 0 {
		return all.config, all.snapshot, nil
	}
	whole := withEdits(all.file, edits, all.policy)
	if err := whole.checkAttachments(); err != nil {
		return nil, nil, err
	}
	c := whole.having(all.share, all.policy)
	snapshot, err := c.topology().Rebuild(all.snapshot, all.policy, c.specs(), topology.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	if _, err := planDevices(c, all.policy, snapshot.Attachments); err != nil {
		return nil, nil, err
	}
	return c, snapshot, nil
}

// checkAttachments says what is wrong with the attachments of a configuration that edits have changed.
func (c *Config) checkAttachments() error {
	v := validator{file: "nsgctl", root: &yaml.Node{}}
	v.attachments(c.Attachments)
	if len(c.Attachments) == 0 || len(c.Attachments) > dataplane.MaxAttachments {
		v.fail(at("attachments"), "%d attachments: allowed are 1 to %d", len(c.Attachments), dataplane.MaxAttachments)
	}
	return errors.Join(v.faults...)
}

// withEdits is a configuration with the edits of its attachments. What is detached is left out, and what is attached
// stands in its place or at the end.
func withEdits(c *Config, edits []edit, set *policy.Set) *Config {
	changed := *c
	changed.Attachments = slices.Clone(c.Attachments)
	for _, e := range edits {
		switch i := index(&changed, e.Identity, set); {
		case e.attach == nil && i >= 0:
			changed.Attachments = slices.Delete(changed.Attachments, i, i+1)
		case e.attach != nil && i >= 0:
			changed.Attachments[i] = *e.attach
		case e.attach != nil:
			changed.Attachments = append(changed.Attachments, *e.attach)
		}
	}
	return &changed
}
