package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

func TestSignalsLeaveNothingBehind(t *testing.T) {
	for name, signal := range map[string]os.Signal{"SIGINT": os.Interrupt, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			d := start(t, labPolicy())
			serveTCP(t, vm4, 80)
			mustConnect(t, internet, vm4, 80)
			d.stop(signal)
		})
	}
}

func TestSecondStartFailsAndHarmsNothing(t *testing.T) {
	d := start(t, labPolicy())
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	a := execute(t, "nsgd", "run", "--config", filepath.Join(d.dir, lab.ConfigName))
	if a.code != 1 {
		t.Errorf("exit %d, want 1", a.code)
	}
	mustName(t, "second nsgd", a, []string{"already running"})
	mustEcho(t, conn)
	mustConnect(t, internet, vm1, 80)
	nsgctl(t, "status")
}

func TestKilledInTheMiddleOfTrafficAndStartedAgainComesUpClean(t *testing.T) {
	d := start(t, labPolicy())
	serveTCP(t, vm1, 80)
	mustConnect(t, internet, vm1, 80)
	stop := flood(t)
	d.kill()
	stop()

	again := startIn(t, d.dir)
	serveTCP(t, vm1, 80)
	mustConnect(t, internet, vm1, 80)
	mustNotConnect(t, internet, vm1, 8080)
	entries, err := os.ReadDir(namespaceDir)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(lab.Namespaces()); len(entries) != want {
		t.Errorf("%d namespaces, want %d: %v", len(entries), want, entries)
	}
	again.stop(syscall.SIGTERM)
}

// flood sends datagrams from VM3 to VM4 until stopped, and returns when the first
// have arrived.
func flood(t *testing.T) (stop func()) {
	t.Helper()
	from, to := bindUDP(t, vm3, 0), bindUDP(t, vm4, 0)
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		datagram := make([]byte, 1000)
		for ctx.Err() == nil {
			// Fails once the device is gone, which is what the test is about.
			from.WriteToUDPAddrPort(datagram, address(to))
		}
	})
	receive(t, to, 100)
	return func() {
		cancel()
		wait.Wait()
	}
}

func TestStartWithoutWhatItNeedsSaysWhatThatIs(t *testing.T) {
	needWorld(t)
	t.Run("root", func(t *testing.T) {
		cmd := exec.Command(program("nsgd"), "run")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(out), "root") {
			t.Errorf("exit %d, %q; want 1 and a message about root", code, out)
		}
	})
	t.Run("/dev/net/tun", func(t *testing.T) {
		if err := syscall.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		a := execute(t, "nsgd", "run")
		if err := syscall.Unmount("/dev/net", 0); err != nil {
			t.Fatal(err)
		}
		if a.code != 1 {
			t.Errorf("exit %d, want 1", a.code)
		}
		mustName(t, "nsgd", a, []string{"/dev/net/tun"})
	})
	nothingLeft(t)
}
