// Package classifiertest holds the rule sets that tests and benchmarks of several packages share.
package classifiertest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/classifier"
)

// MostClassBenchRules is the size of the largest NSG. Only so many rules of a set are read.
const MostClassBenchRules = 4000

// ClassBenchSets are the rule sets, and the number of rules that are read from each.
var ClassBenchSets = []struct {
	Name  string
	Rules int
}{
	{"acl1_1k", 942}, {"fw1_1k", 857}, {"ipc1_1k", 974}, {"acl1_10k", MostClassBenchRules}, {"fw1_10k", MostClassBenchRules},
}

// ReadClassBench reads a ClassBench rule set for a package two folders below the module's. It skips
// the test when the sets are not there. A set has one rule a line:
//
//	@10.0.0.0/8	192.0.2.1/32	0 : 65535	80 : 80	0x06/0xFF	0x1000/0x1000
//
// Its fields map to ours like this:
//
//   - the two prefixes and the two port ranges are used as they are;
//   - a protocol mask of 0x00 is AnyProtocol; protocols 6, 17, 1, 50 and 51 are
//     TCP, UDP, ICMP, ESP and AH;
//   - a protocol that a security rule cannot name (GRE, 0x2f, in these sets) becomes
//     AnyProtocol, which widens the rule;
//   - port ranges of ICMP, ESP, AH and GRE rules are all 0 : 65535 in these sets
//     and mean "no port";
//   - the last field, TCP flags and their mask, is not read: security rules have no
//     flags.
func ReadClassBench(tb testing.TB, name string) []classifier.Rule {
	tb.Helper()
	path := filepath.Join("..", "..", "..", "shared", "data", "classbench", name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		tb.Skipf("ClassBench rule set %s is not there: %v", name, err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var rules []classifier.Rule
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(rules) < MostClassBenchRules {
		r, err := parseClassBench(lines.Text())
		if err != nil {
			tb.Fatalf("%s:%d: %v", path, len(rules)+1, err)
		}
		rules = append(rules, r)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return rules
}

func parseClassBench(line string) (classifier.Rule, error) {
	var src, dst string
	var sp, dp ruleset.PortRange
	var proto, mask uint8
	_, err := fmt.Sscanf(line, "@%s %s %d : %d %d : %d %v/%v", &src, &dst, &sp.First, &sp.Last, &dp.First, &dp.Last, &proto, &mask)
	if err != nil {
		return classifier.Rule{}, fmt.Errorf("%q: %w", line, err)
	}
	from, err := netip.ParsePrefix(src)
	if err != nil {
		return classifier.Rule{}, err
	}
	to, err := netip.ParsePrefix(dst)
	if err != nil {
		return classifier.Rule{}, err
	}
	r := classifier.Rule{
		Sources: []netip.Prefix{from}, Destinations: []netip.Prefix{to},
		SourcePorts: []ruleset.PortRange{sp}, DestinationPorts: []ruleset.PortRange{dp},
	}
	if mask != 0 {
		r.Protocol = map[uint8]ruleset.Protocol{
			6: ruleset.TCP, 17: ruleset.UDP, 1: ruleset.ICMP, 50: ruleset.ESP, 51: ruleset.AH,
		}[proto]
	}
	return r, nil
}
