package control_test

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestADaemonIsReadyWhileItsDevicesAndWorkersAreThere(t *testing.T) {
	r := newRig(t)
	r.eventually("the daemon is ready", func() bool { return len(r.service.Unready(t.Context())) == 0 })
	r.gone[1].Store(true)
	if got, want := r.service.Unready(t.Context()), []string{"attachment vm2-nic: the device eth0 is gone"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.gone[1].Store(false)
	if got := r.service.Unready(t.Context()); len(got) > 0 {
		t.Errorf("not ready again: %q", got)
	}
}

func TestWorkersThatDoNotRunAreNoReadyDaemon(t *testing.T) {
	r := newStoppedRig(t)
	if got := strings.Join(r.service.Unready(context.Background()), "\n"); got != "workers that carry nothing: 0 of 1" {
		t.Errorf("got %q", got)
	}
}
