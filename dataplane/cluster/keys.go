package cluster

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
)

// keys are the names in etcd, below a prefix that ends with a slash.
//
// What hosts watch lies together: from claim/ up to vni0. Chunks lie before it, so that no watcher is sent one, and so do
// reports, which only those read who apply or ask.
type keys string

func (k keys) chunk(h generation.Hash) string { return string(k) + "chunk/" + h.String() }
func (k keys) chunks() string                 { return string(k) + "chunk/" }
func (k keys) claims() string                 { return string(k) + "claim/" }
func (k keys) claim(nic string) string        { return k.claims() + escape(nic) }
func (k keys) generations() string            { return string(k) + "gen/" }
func (k keys) head() string                   { return string(k) + "head" }
func (k keys) healths() string                { return string(k) + "health/" }
func (k keys) health(host string) string      { return k.healths() + host }
func (k keys) hosts() string                  { return string(k) + "host/" }
func (k keys) host(name string) string        { return k.hosts() + name }
func (k keys) reports() string                { return string(k) + "carries/" }
func (k keys) report(host string) string      { return k.reports() + host }
func (k keys) last() string                   { return string(k) + "last" }
func (k keys) moves() string                  { return string(k) + "move/" }
func (k keys) move(nic string) string         { return k.moves() + escape(nic) }
func (k keys) offer() string                  { return string(k) + "offer" }
func (k keys) vnis() string                   { return string(k) + "vni/name/" }
func (k keys) vni(name string) string         { return k.vnis() + escape(name) }
func (k keys) age() string                    { return string(k) + "vni/age" } // hosts may write there
func (k keys) vniNumber(n uint32) string      { return fmt.Sprintf("%svni/number/%08d", k, n) }

// generation has its number in a fixed width, so that keys are in the order of numbers.
func (k keys) generation(n uint64) string { return fmt.Sprintf("%s%020d", k.generations(), n) }

// parseGeneration is the number in a generation's key.
func (k keys) parseGeneration(key string) (uint64, bool) {
	text, ok := strings.CutPrefix(key, k.generations())
	n, err := strconv.ParseUint(text, 10, 64)
	return n, ok && err == nil && n > 0
}

// escape makes an id one element of a key, in lower case, as Azure compares ids.
func escape(id string) string { return url.PathEscape(strings.ToLower(id)) }

func unescape(text string) (string, bool) {
	id, err := url.PathUnescape(text)
	return id, err == nil && id != ""
}

// NormalNIC is a network interface's id as claims have it.
func NormalNIC(id string) string { return strings.ToLower(id) }

// hostName is what a host may be called.
var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// CheckHost refuses a name that no host may have.
func CheckHost(name string) error {
	if !hostName.MatchString(name) {
		return fmt.Errorf("%q: allowed are 1 to 63 letters, digits, and -._ between them", name)
	}
	return nil
}

// prefixes are what a prefix may be.
var prefixes = regexp.MustCompile(`^(/[A-Za-z0-9._-]{1,63}){1,8}$`)

// CheckPrefix refuses a prefix that keys can't have.
func CheckPrefix(prefix string) error {
	if !prefixes.MatchString(prefix) {
		return fmt.Errorf("%q: allowed are 1 to 8 names of letters, digits and ._-, each behind a slash, such as /nsgd", prefix)
	}
	return nil
}
