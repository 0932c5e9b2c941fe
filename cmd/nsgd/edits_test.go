package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/continuity"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
	"github.com/nsgd/nsgd/deploy/lab"
)

const vm3Attachment = "{networkInterface: vm3-nic, netns: vm3, create: true, device: eth0}"

// successorOf is a daemon that finds what slabs hold, with its configuration resumed.
func successorOf(t *testing.T, slabs *slab.Slabs, path string) (*daemon, *loaded, *logringtest.Buffer) {
	t.Helper()
	store, err := continuity.Open(slab.New(slabs.Files(), nil), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	all, err := loadAll(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	log := &logringtest.Buffer{}
	d := &daemon{config: all.config, file: all.file, inherited: &inheritance{kept: store}, log: slog.New(slog.NewTextHandler(log, nil))}
	if err := d.resumeEdits(all); err != nil {
		t.Fatal(err)
	}
	return d, all, log
}

// names are the attachments of a configuration.
func (c *Config) names() string {
	var names []string
	for i := range c.Attachments {
		names = append(names, c.Attachments[i].NetworkInterface+c.Attachments[i].Netns)
	}
	return strings.Join(names, " ")
}

// TestAttachAndDetachOutliveTheProcess makes edits by a service, and has the next process find them.
func TestAttachAndDetachOutliveTheProcess(t *testing.T) {
	slabs := slab.New(nil, nil)
	store, err := continuity.Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := newLiveRigKeeping(t, store)
	for _, e := range []inspect.Edit{{Attach: vm3Attachment}, {Detach: "vm2-nic", Keep: true}} {
		if _, err := r.service.Attach(e); err != nil {
			t.Fatal(err)
		}
	}
	const both = "vm1-nicvm1 internet vm3-nicvm3"
	d, all, log := successorOf(t, slabs, r.path)
	if got := d.config.names(); got != both {
		t.Errorf("attached are %s", got)
	}
	if d.file.names() == both || len(d.edits) != 2 || d.edits[0].Keep || !d.edits[1].Keep || strings.Count(log.String(), "goes on with") != 2 {
		t.Errorf("%+v %s", d.edits, log)
	}
	if len(all.snapshot.Attachments) != 3 {
		t.Errorf("the prepared policy has %d attachments", len(all.snapshot.Attachments))
	}
	if _, err := r.service.Reload(inspect.ReloadRequest{}); err != nil { // takes back what is not kept
		t.Fatal(err)
	}
	if d, _, _ := successorOf(t, slabs, r.path); d.config.names() != "vm1-nicvm1 internet" {
		t.Errorf("attached are %s", d.config.names())
	}
}

// TestEditsThatDoNotFitAreForgottenByName has files and versions change between two processes.
func TestEditsThatDoNotFitAreForgottenByName(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "live.yaml")
	if err := os.WriteFile(path, []byte(liveConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	const start = "vm1-nicvm1 vm2-nicvm2 internet"
	good := `{"Identity":"x","Attach":"` + vm3Attachment + `"}`
	for _, tt := range []struct{ name, kept, want, log string }{
		{"none", "", start, ""},
		{"no JSON", "{", start, "unexpected end of JSON"},
		{"an attachment with a key of another version", `[{"Identity":"x","Attach":"{networkInterface: vm3-nic, colour: red}"},` + good + `]`, start + " vm3-nicvm3", "colour"},
		{"a network interface that the policy lacks", `[{"Identity":"x","Attach":"{networkInterface: vm9-nic, netns: vm9, create: true, device: eth0}"},` + good + `]`, start + " vm3-nicvm3", "vm9-nic"},
		{"a device that the configuration has now", `[{"Identity":"x","Attach":"{networkInterface: vm3-nic, netns: vm1, create: true, device: eth0}"}]`, start, "a device of that name"},
		{"the end of what is not attached", `[{"Identity":"y"}]`, start, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			slabs := slab.New(nil, nil)
			store, err := continuity.Open(slabs, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			store.SetEdits([]byte(tt.kept))
			d, _, log := successorOf(t, slabs, path)
			if d.config.names() != tt.want || !strings.Contains(log.String(), tt.log) || strings.Contains(log.String(), "forgotten") != (tt.log != "") {
				t.Errorf("attached are %s: %s", d.config.names(), log)
			}
			if again, _, log := successorOf(t, slabs, path); again.config.names() != tt.want || strings.Contains(log.String(), "forgotten") {
				t.Errorf("the second time: %s: %s", again.config.names(), log)
			}
		})
	}
}

func TestAFailedStartForgetsEdits(t *testing.T) {
	r := newLiveRig(t)
	slabs := slab.New(nil, nil)
	store, err := continuity.Open(slabs, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store.SetEdits([]byte(`[{"Identity":"x","Attach":"` + vm3Attachment + `"}]`))
	d, _, log := successorOf(t, slabs, r.path)
	if err := d.forgetEdits(); err != nil || !strings.Contains(log.String(), "the next start forgets") {
		t.Errorf("%v: %s", err, log)
	}
	if d, _, _ := successorOf(t, slabs, r.path); len(d.edits) != 0 || slices.ContainsFunc(d.config.Attachments, func(a AttachmentConfig) bool { return a.Netns == "vm3" }) {
		t.Errorf("%+v", d.edits)
	}
}

func TestAChangeOfAttachmentsHasAnID(t *testing.T) {
	r := newLiveRig(t)
	done, err := r.service.Attach(inspect.Edit{Attach: vm3Attachment, Cause: "user 1000"})
	if err != nil || len(done.ID) != 16 {
		t.Fatalf("%+v %v", done, err)
	}
	_, err = r.service.Attach(inspect.Edit{Detach: "nobody", Cause: "user 1001"})
	refused, ok := errors.AsType[*inspect.ReloadError](err)
	if !ok || refused.ID == done.ID {
		t.Fatalf("%v", err)
	}
	for id, want := range map[string][]string{done.ID: {"cause=\"user 1000\"", "attached vm3-nic"}, refused.ID: {"cause=\"user 1001\"", "stay as they are"}} {
		lines := ""
		for line := range strings.Lines(r.log.String()) {
			if strings.Contains(line, "change="+id) {
				lines += line
			}
		}
		for _, w := range want {
			if !strings.Contains(lines, w) {
				t.Errorf("the lines of %s lack %q: %s", id, w, lines)
			}
		}
	}
}
