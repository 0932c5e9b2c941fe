// Package armtest makes ARM documents for the tests and benchmarks of every layer: a
// service tag file of realistic size, and network security groups that use its largest
// tags.
package armtest

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// LargestTags are the names of the tags with the most prefixes, the largest first.
var LargestTags = []string{"AzureCloud", "AzureMonitor", "MicrosoftCloudAppSecurity", "LogicApps", "Sql", "Storage"}

// sizes are the numbers of prefixes of LargestTags in the edition of November 2025.
var sizes = []int{13155, 2499, 2302, 1910, 1513, 800}

// regionalTags and regionalPrefixes are about the number and size of its other tags.
const regionalTags, regionalPrefixes = 3000, 24

// ServiceTags is the path of a service tag file: Microsoft's own if a copy is beside the
// repository, else a generated one with as many tags and prefixes.
func ServiceTags(tb testing.TB) string {
	tb.Helper()
	if real := realServiceTags(); real != "" {
		tb.Log("service tags: Microsoft's own,", real)
		return real
	}
	tb.Log("service tags: made up; no copy of Microsoft's file lies beside the repository")
	file := filepath.Join(tb.TempDir(), "ServiceTags_Public.json")
	if err := os.WriteFile(file, madeUpTags(), 0o644); err != nil {
		tb.Fatal(err)
	}
	return file
}

// realServiceTags finds the copy from any package of the repository.
func realServiceTags() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			file := filepath.Join(dir, "..", "shared", "data", "service-tags", "ServiceTags_Public.json")
			if _, err := os.Stat(file); err == nil {
				return file
			}
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

type properties struct {
	ChangeNumber    int      `json:"changeNumber"`
	Region          string   `json:"region"`
	AddressPrefixes []string `json:"addressPrefixes"`
	NetworkFeatures []string `json:"networkFeatures"`
}

type tag struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	Properties properties `json:"properties"`
}

func madeUpTags() []byte {
	var values []tag
	next := 0
	add := func(name string, prefixes int) {
		t := tag{Name: name, ID: name, Properties: properties{ChangeNumber: 1}}
		for i := range prefixes {
			next++
			if i%4 == 3 { // a quarter is IPv6
				address := netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, byte(next >> 16), byte(next >> 8), byte(next)})
				t.Properties.AddressPrefixes = append(t.Properties.AddressPrefixes, netip.PrefixFrom(address, 64).String())
				continue
			}
			address := netip.AddrFrom4([4]byte{byte(20 + next>>14), byte(next >> 6), byte(next << 2), 0})
			t.Properties.AddressPrefixes = append(t.Properties.AddressPrefixes, netip.PrefixFrom(address, 25).String())
		}
		values = append(values, t)
	}
	for i, name := range LargestTags {
		add(name, sizes[i])
	}
	for i := range regionalTags {
		add(fmt.Sprintf("Service%d.Region%d", i/30, i%30), regionalPrefixes)
	}
	data, err := json.MarshalIndent(map[string]any{"changeNumber": 1, "cloud": "Public", "values": values}, "", "  ")
	if err != nil {
		panic(err) // strings and numbers only
	}
	return data
}
