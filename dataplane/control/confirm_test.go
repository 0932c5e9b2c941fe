package control_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// port is that of the lab's first rule.
func (r *rig) port() string {
	r.t.Helper()
	list, err := r.client.Rules(r.t.Context(), inspect.RuleFilter{NetworkSecurityGroup: "NSG1"})
	if err != nil {
		r.t.Fatal(err)
	}
	return list.Rules[0].DestinationPorts[0]
}

// reloadUnconfirmed reloads another port, which waits for its confirmation then.
func (r *rig) reloadUnconfirmed() *inspect.Reloaded {
	r.t.Helper()
	r.replaceIn("nsg1.json", `"destinationPortRange": "80"`, `"destinationPortRange": "81"`)
	reloaded, err := r.client.Reload(r.t.Context(), time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	return reloaded
}

func TestAReloadThatNobodyConfirmsIsTakenBack(t *testing.T) {
	r := newRig(t)
	before := r.service.Reloads().Loaded
	reloaded := r.reloadUnconfirmed()
	if want := before.Add(time.Minute); reloaded.ConfirmBy == nil || !reloaded.ConfirmBy.Equal(want) || r.port() != "81" {
		t.Errorf("port %s until %v, want 81 until %v", r.port(), reloaded.ConfirmBy, want)
	}
	r.elapsed.Store(int64(time.Minute))
	r.late[0]()
	got := r.service.Reloads()
	if r.port() != "80" || got.ConfirmBy != nil || !got.Loaded.Equal(before) || !strings.Contains(got.LastError, reloaded.ID) {
		t.Errorf("port %s, %+v", r.port(), got)
	}
	// What was remembered of the files is that of the policy in force: the next reload finds the change.
	if _, err := r.client.Reload(t.Context(), 0); err != nil || r.port() != "81" {
		t.Errorf("the next reload: port %s, %v", r.port(), err)
	}
}

func TestAConfirmedReloadStays(t *testing.T) {
	r := newRig(t)
	reloaded := r.reloadUnconfirmed()
	confirmed, err := r.client.Confirm(t.Context())
	if err != nil || !confirmed.Confirmed || confirmed.Reload != reloaded.ID {
		t.Errorf("%+v, %v, want %s", confirmed, err, reloaded.ID)
	}
	r.late[0]() // the timer had fired just then
	if got := r.service.Reloads(); r.port() != "81" || got.ConfirmBy != nil || got.Failed != 0 {
		t.Errorf("port %s, %+v", r.port(), got)
	}
	if again, err := r.client.Confirm(t.Context()); err != nil || again.Confirmed {
		t.Errorf("a second one: %+v, %v", again, err)
	}
}

// A second change would be taken back with the first, or would keep it.
func TestNothingChangesWhileAReloadWaits(t *testing.T) {
	r := newRig(t)
	reloaded := r.reloadUnconfirmed()
	for _, within := range []time.Duration{0, time.Minute} {
		_, err := r.client.Reload(t.Context(), within)
		if refusal := wantRefusal(t, err, http.StatusConflict); !strings.Contains(refusal.Message, "waits for nsgctl confirm until 03:05:05 (reload "+reloaded.ID+")") {
			t.Error(refusal)
		}
	}
	r.late[0]()
	if r.port() != "80" || len(r.late) != 1 {
		t.Errorf("port %s, %d timers", r.port(), len(r.late))
	}
}

func TestAReturnThatFailsIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.replaceIn("vm1-nic.json", "10.0.1.4", "10.0.1.44")
	r.reloadUnconfirmed()
	r.broken[0].Store(true)
	r.late[0]()
	if got := r.service.Reloads(); r.port() != "81" || got.ConfirmBy == nil || !strings.Contains(got.LastError, "the return fails") || len(r.late) != 2 {
		t.Fatalf("port %s, %d timers, %+v", r.port(), len(r.late), got)
	}
	r.late[1]()
	if got := r.service.Reloads(); r.port() != "80" || got.ConfirmBy != nil || r.devices[0].Addresses()[0].String() != "10.0.1.4/24" {
		t.Errorf("port %s, addresses %v, %+v", r.port(), r.devices[0].Addresses(), got)
	}
}

func TestADaemonThatEndsTakesNothingBack(t *testing.T) {
	r := newRig(t)
	r.reloadUnconfirmed()
	r.service.Close()
	r.late[0]()
	if got := r.port(); got != "81" {
		t.Errorf("port %s", got)
	}
}

func TestTheTimeOfAConfirmationIsBounded(t *testing.T) {
	r := newRig(t)
	for _, within := range []time.Duration{time.Millisecond, 25 * time.Hour} {
		_, err := r.client.Reload(t.Context(), within)
		wantRefusal(t, err, http.StatusBadRequest)
	}
	if got := r.service.Reloads(); got.Succeeded+got.Failed != 0 {
		t.Errorf("%+v", got)
	}
}

// What a reader remembers of a file that is taken back told of the wrong edition.
func TestAServiceTagFileThatNobodyConfirmsIsTakenBack(t *testing.T) {
	s := newTagged(t)
	s.write(`"377"`, "198.51.100.0/24")
	if _, err := s.service.Reload(inspect.ReloadRequest{ConfirmWithin: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if got := s.service.Status().ServiceTags.ChangeNumber; got != "377" {
		t.Errorf("the edition that waits: %v", got)
	}
	s.late()
	if got := s.service.Status().ServiceTags.ChangeNumber; got != "376" {
		t.Errorf("the edition that is back: %v", got)
	}
}
