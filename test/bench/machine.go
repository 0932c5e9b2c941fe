package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is what was measured on, and with what.
type machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	Memory   float64           `json:"memoryGB"`
	Kernel   string            `json:"kernel"`
	Versions map[string]string `json:"versions"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores of %s, %.0f GB, Linux %s, %s", m.Cores, m.CPU, m.Memory, m.Kernel, m.Versions["go"])
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
	m.version("wrk", "dpkg-query", "-W", "-f", "${Version}", "wrk") // wrk -v ends with an error
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
