package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// withTraces chooses what -traces is about.
func (o *options) withTraces() {
	o.setups = "traces"
	if o.measures == "all" {
		o.measures = "tcp1,udp64,connects"
	}
}

// traces are nsgd while nobody traces, when a trace of everything is over, and during one.
func traces(binary string) []setup {
	tool := filepath.Join(filepath.Dir(binary), "nsgctl")
	after := func(name string, f func(*network) error) setup {
		return setup{name: name, start: func() (*network, error) {
			n, err := startDaemon(binary, "", rules(fewRules))
			if err != nil {
				return nil, err
			}
			if err := f(n); err != nil {
				n.stop()
				return nil, err
			}
			return n, nil
		}}
	}
	return []setup{
		after("untraced", func(*network) error { return nil }),
		after("traced before", func(*network) error {
			stop, err := trace(tool)
			if err == nil {
				stop()
			}
			return err
		}),
		after("traced", func(n *network) error {
			stop, err := trace(tool)
			if err != nil {
				return err
			}
			end := n.stop
			n.stop = func() { stop(); end() }
			return nil
		}),
	}
}

// trace begins a trace of everything and returns when it has begun.
func trace(tool string) (stop func(), err error) {
	cmd := exec.Command(tool, "trace", "--per-second", "0", "-o", "table")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said, err := bufio.NewReader(stderr).ReadString('\n')
	if !strings.HasPrefix(said, "watching") {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, fmt.Errorf("%s: %q, %v", cmd, said, err)
	}
	return func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}, nil
}
