package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

// startPatience bounds how long a start may take that is measured.
const startPatience = 5 * time.Minute

// sizeFlows are how many flows there are when memory is measured.
var sizeFlows = []int{0, 100_000, 1_000_000}

// startSizes are the policies whose start is measured: the NICs of the policy, and those that have a device.
var startSizes = []struct{ nics, attached int }{{100, 2}, {5_000, 2}, {100, 100}, {5_000, 5_000}}

// perNamespace is how many devices share a namespace.
const perNamespace = 100

// runSizes measures how long nsgd takes to start, and how much memory it needs.
func runSizes(nsgd string, rounds int) error {
	if err := privateWorld(); err != nil {
		return err
	}
	binary, err := filepath.Abs(nsgd)
	if err != nil {
		return err
	}
	for _, size := range startSizes {
		for range rounds {
			if err := startOf(binary, size.nics, size.attached); err != nil {
				return err
			}
		}
	}
	for _, kept := range []bool{false, true} {
		if err := memoryOf(binary, kept); err != nil {
			return err
		}
	}
	return nil
}

// startOf prints how long a daemon takes until it answers, and its successor after a kill.
func startOf(binary string, nics, attached int) error {
	dir, err := tempDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config, err := writeMany(dir, nics, attached)
	if err != nil {
		return err
	}
	before, began := available(), time.Now()
	b, err := startBackground(binary, "keep", "--", binary, "run", "--config", config)
	if err != nil {
		return err
	}
	defer b.stop()
	took, err := b.answers(began, 0)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.log.Bytes())
	}
	fmt.Printf("%5d NICs, %4d of them attached: ready after %5.0f ms, %5d MB of memory", nics, attached, milliseconds(took), before-available())
	r := restartRig{client: control.NewClient(restartSocket)}
	defer r.client.Close()
	last, killed := r.daemon(), time.Now()
	if err := syscall.Kill(last, syscall.SIGKILL); err != nil {
		return err
	}
	if took, err = b.answers(killed, last); err != nil {
		return fmt.Errorf("%w\n%s", err, b.log.Bytes())
	}
	fmt.Printf(", after a kill %5.0f ms\n", milliseconds(took))
	return nil
}

// available is how many megabytes the machine has left, those of the kernel among what is used.
func available() (megabytes int) {
	text, _ := os.ReadFile("/proc/meminfo") // Linux has it
	_, after, _ := strings.Cut(string(text), "MemAvailable:")
	fmt.Sscan(after, &megabytes)
	return megabytes >> 10
}

// answers waits until a daemon with another pid than the last one answers on the control socket.
func (b *background) answers(began time.Time, last int) (time.Duration, error) {
	client := control.NewClient(restartSocket)
	defer client.Close()
	for time.Since(began) < startPatience {
		if status, err := client.Status(context.Background()); err == nil && status.PID != last {
			return time.Since(began), nil
		}
		select {
		case <-b.ended:
			return 0, fmt.Errorf("%s: %w", b.cmd.Path, b.err)
		case <-time.After(time.Millisecond):
		}
	}
	return 0, errors.New("no daemon answers")
}

// writeMany writes a policy of a hundred groups of a hundred rules, and a configuration that attaches the first NICs.
func writeMany(dir string, nics, attached int) (config string, err error) {
	many := armtest.Policy{Groups: 100, Rules: 100, Interfaces: nics}
	policy := filepath.Join(dir, "policy")
	if err := errors.Join(os.Mkdir(policy, 0o755), many.Write(policy)); err != nil {
		return "", err
	}
	var attachments []string
	for i := range attached {
		attachments = append(attachments, fmt.Sprintf("- {networkInterface: %s, netns: bench-%d, create: true, device: eth%d}\n", armtest.InterfaceName(i), i/perNamespace, i%perNamespace))
	}
	config = filepath.Join(dir, lab.ConfigName)
	return config, os.WriteFile(config, []byte("policy: [policy/]\nattachments:\n"+strings.Join(attachments, "")), 0o644)
}

// memoryOf prints how much memory a daemon needs with so many flows, and how long it takes to go on with them where they are
// kept.
func memoryOf(binary string, kept bool) (err error) {
	config, err := writeTranslation()
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(config))
	most := sizeFlows[len(sizeFlows)-1] * 5 / 4
	text, err := os.ReadFile(config)
	if err == nil {
		text, err = mergeConfig(text, fmt.Sprintf("{flows: {max: %d, maxPerNetworkInterface: %d}, timeouts: {udpOneWay: 1h}}", most, most))
	}
	if err == nil {
		err = replace(config, text)
	}
	if err != nil {
		return err
	}
	args, how := []string{"run", "--config", config}, "without continuity"
	if kept {
		args, how = append([]string{"keep", "--", binary}, args...), "with continuity"
	}
	b, err := startBackground(binary, args...)
	if err != nil {
		return err
	}
	defer func() {
		if b.stop(); err != nil {
			err = fmt.Errorf("%w\n%s", err, b.log.Bytes())
			return
		}
		for _, took := range adopted.FindAllString(b.log.String(), -1) {
			fmt.Println("  ", took)
		}
	}()
	if _, err := b.answers(time.Now(), 0); err != nil {
		return err
	}
	r := &restartRig{binary: binary, client: control.NewClient(restartSocket)}
	defer r.client.Close()
	if err := r.routeNowhere(); err != nil {
		return err
	}
	for i, flows := range sizeFlows {
		if i > 0 {
			if err := r.fillUp(sizeFlows[i-1], flows); err != nil {
				return err
			}
		}
		if err := r.show(how, ""); err != nil || !kept {
			if err != nil {
				return err
			}
			continue
		}
		last, killed := r.daemon(), time.Now()
		if err := syscall.Kill(last, syscall.SIGKILL); err != nil {
			return err
		}
		took, err := b.answers(killed, last)
		if err != nil {
			return err
		}
		if err := r.show(how, fmt.Sprintf(", answers %.0f ms after a kill", milliseconds(took))); err != nil {
			return err
		}
	}
	return nil
}

// fillUp is fill until all flows are there: the sender may be faster than nsgd.
func (r *restartRig) fillUp(first, end int) error {
	const attempts = 5
	live := int64(0)
	for range attempts {
		if err := r.fill(first, end); err != nil {
			return err
		}
		status, err := r.client.Status(context.Background())
		if err != nil {
			return err
		}
		if live = status.Flows.Live; live >= int64(end) {
			return nil
		}
	}
	return fmt.Errorf("%d flows, want %d: datagrams were lost each time", live, end)
}

// adopted is what the log says of the flows that go on.
var adopted = regexp.MustCompile(`goes on with the last process's flows" flows=\d+ took=\S+`)

// show prints the flows and the memory of the daemon that runs.
func (r *restartRig) show(how, more string) error {
	status, err := r.client.Status(context.Background())
	if err != nil {
		return err
	}
	megabytes := func(key string) int { return memoryIn(status.PID, key) }
	fmt.Printf("%s, %7d flows: %4d MB resident, %4d MB of it anonymous, %4d MB shared with the store%s\n", how, status.Flows.Live,
		megabytes("VmRSS"), megabytes("RssAnon"), megabytes("RssShmem"), more)
	return nil
}

// memoryIn is a figure of a process's memory in megabytes; 0: there is none.
func memoryIn(pid int, key string) (megabytes int) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // of one that has ended there is none
	_, after, _ := strings.Cut(string(text), "\n"+key+":")
	fmt.Sscan(after, &megabytes)
	return megabytes >> 10
}
