package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// guarded counts, before VM1's own network stack, what the rules let in and what they must not.
const guarded = `table ip guarded {
	counter allowed {}
	counter denied {}
	chain c {
		type filter hook prerouting priority raw
		tcp dport 80 counter name allowed accept
		ip saddr != 10.0.0.0/8 counter name denied
	}
}`

var counterLine = regexp.MustCompile(`counter (\w+) \{\s*packets (\d+)`)

// run runs a program in a host's namespace and returns what it prints.
func run(t *testing.T, h lab.Host, name string, args ...string) string {
	t.Helper()
	var out []byte
	inside(t, h, func() (err error) {
		if out, err = exec.Command(name, args...).CombinedOutput(); err != nil {
			err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return err
	})
	return string(out)
}

// Scanners, floods and malformed packets from the internet: only what the rules allow comes in, TCP port 80.
func TestHostileScanners(t *testing.T) {
	needNftables(t)
	for _, program := range []string{"nmap", "hping3", "/usr/bin/python3"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatal("scripts/setup installs it: ", err)
		}
	}
	start(t, labPolicy())
	serveTCP(t, vm1, 80)
	serveTCP(t, vm1, 22)
	inside(t, vm1, func() error {
		out, err := nft(guarded)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	target := vm1.Address.String()
	for _, tt := range []struct {
		scan    []string
		port80  string // as nmap sees it
		through bool   // packets to port 80 pass
	}{
		{scan: []string{"-sS"}, port80: "open", through: true},
		{scan: []string{"-sS", "-f"}, port80: "filtered"}, // first fragments without a whole TCP header
		{scan: []string{"-sS", "--source-port", "53"}, port80: "open", through: true},
		{scan: []string{"-sS", "-D", "203.0.113.77,10.0.1.5,198.51.100.9,ME"}, port80: "open", through: true},
		{scan: []string{"-sA"}, port80: "unfiltered", through: true},
		{scan: []string{"-sF"}, port80: "open|filtered"},
		{scan: []string{"-sX"}, port80: "open|filtered"},
		{scan: []string{"-sN"}, port80: "open|filtered"},
	} {
		t.Run("nmap "+strings.Join(tt.scan, " "), func(t *testing.T) {
			before := guards(t)["allowed"]
			args := append([]string{"-n", "-Pn", "--max-retries", "1", "-p", "22,80,443", "-oG", "-"}, tt.scan...)
			text := run(t, internet, "nmap", append(args, target)...)
			for port, want := range map[string]string{"80": tt.port80, "22": closedTo(tt.port80), "443": closedTo(tt.port80)} {
				if !strings.Contains(text, " "+port+"/"+want+"/tcp") {
					t.Errorf("port %s is not %s: %s", port, want, text)
				}
			}
			if after := guards(t); after["denied"] != 0 || after["allowed"] > before != tt.through {
				t.Errorf("%d packets to other ports came in, %d to port 80", after["denied"], after["allowed"]-before)
			}
		})
	}
	t.Run("hping3 floods", func(t *testing.T) {
		for _, args := range [][]string{{"-S", "-p", "22"}, {"-A", "-p", "443"}, {"-2", "-p", "53"}, {"-1"}, {"-S", "-p", "22", "--rand-source"}} {
			inside(t, internet, func() error {
				hping(append([]string{"-q", "-c", "2000", "-i", "u20"}, args...), target)
				return nil
			})
		}
		if after := guards(t); after["denied"] != 0 {
			t.Errorf("%d packets came in", after["denied"])
		}
	})
	t.Run("scapy's malformed packets", func(t *testing.T) {
		run(t, internet, "/usr/bin/python3", "-c", scapySends, target)
		if after := guards(t); after["denied"] != 0 {
			t.Errorf("%d packets came in", after["denied"])
		}
	})
	mustConnect(t, internet, vm1, 80)
	t.Logf("let in to port 80: %d packets; elsewhere: %d", guards(t)["allowed"], guards(t)["denied"])
}

// hping runs hping3, whose exit status says whether answers came.
func hping(args []string, target string) { exec.Command("hping3", append(args, target)...).Run() }

// closedTo is how a scan that sees port 80 one way sees a port that the rules close.
func closedTo(port80 string) string {
	if strings.HasPrefix(port80, "open|") {
		return port80
	}
	return "filtered"
}

// guards reads the counters in VM1.
func guards(t *testing.T) map[string]int {
	t.Helper()
	counters := map[string]int{}
	for _, m := range counterLine.FindAllStringSubmatch(run(t, vm1, "nft", "list", "counters"), -1) {
		counters[m[1]], _ = strconv.Atoi(m[2])
	}
	if len(counters) != 2 {
		t.Fatalf("counters of VM1: %v", counters)
	}
	return counters
}

// scapySends sends packets with random headers, options and lengths, none of them to port 80.
const scapySends = `
import logging, random, sys
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import IP, TCP, UDP, ICMP, IPOption_LSRR, IPOption_SSRR, Raw, conf, fuzz, raw
conf.verb = 0
dst = sys.argv[1]
s = conf.L3socket()
other = lambda: random.choice((1, 22, 53, 443, 65535))
for i in range(1500):
    k = i % 6
    if k == 0: p = IP(dst=dst)/fuzz(TCP(dport=other()))
    elif k == 1: p = IP(dst=dst)/fuzz(UDP(dport=other()))
    elif k == 2: p = IP(dst=dst, options=[random.choice((IPOption_LSRR, IPOption_SSRR))(routers=["203.0.113.1"])])/TCP(dport=80, flags="S")
    elif k == 3: p = IP(dst=dst, frag=random.randrange(1, 8191), flags=random.randrange(8), proto=6)/Raw(b"x"*random.randrange(64))
    elif k == 4: p = IP(dst=dst, len=random.randrange(20, 2000))/UDP(dport=other())/Raw(b"y"*8)
    else: p = IP(dst=dst)/fuzz(ICMP())
    try: s.send(p)
    except OSError: pass
`
