package main

import (
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what was measured on, and with what.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   float64           `json:"memoryGB"`
	Kernel   string            `json:"kernel"`
	Load     float64           `json:"load"` // average of a minute when the run began, of all its pieces the largest
	Versions map[string]string `json:"versions"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, %.0f GB, Linux %s, %s", m.Cores, m.CPU, m.Memory, m.Kernel, m.Versions["go"])
}

// tools are the versions of what was measured with, nsgd apart.
func (m machine) tools() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		if name != "go" && !strings.Contains(m.Versions[name], "nsgd") {
			fmt.Fprintf(&b, ", %s", m.Versions[name])
		}
	}
	return b.String()
}

func thisMachine(o *options) machine {
	m := machine{Cores: runtime.NumCPU(), CPU: "unknown CPU", Versions: map[string]string{"go": runtime.Version()}}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
		m.Load = float64(info.Loads[0]) / (1 << 16)
	}
	text, _ := os.ReadFile("/proc/cpuinfo") // what it does not say stays unknown
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	for _, binary := range o.nsgd {
		m.version(binary, binary, "--version")
	}
	m.version("iperf3", "iperf3", "--version")
	m.version("nft", "nft", "--version")
	m.version("wrk", "dpkg-query", "-W", "-f", "wrk ${Version}", "wrk") // wrk -v ends with an error
	if missingOVS() == "" {
		m.version("ovs-vswitchd", "ovs-vswitchd", "--version")
	}
	return m
}

// version notes the first line of what a program says about itself.
func (m machine) version(name, program string, args ...string) {
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		m.Versions[name] = err.Error()
		return
	}
	first, _, _ := strings.Cut(string(out), "\n")
	m.Versions[name] = first
}

// modules notes the versions of some modules that a Go program is built of, instead of those of programs.
func (m *machine) modules(program string, paths ...string) error {
	built, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	m.Versions = map[string]string{"go": runtime.Version()}
	for _, dependency := range built.Deps {
		if slices.Contains(paths, dependency.Path) {
			m.Versions[dependency.Path] = dependency.Path + " " + dependency.Version
		}
	}
	return nil
}
