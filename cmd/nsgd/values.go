package main

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a span of time in Go's notation. A bare number is refused: YAML
// would take 30 for nanoseconds.
type Duration time.Duration

// UnmarshalYAML reads a string such as 30s or 4m.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		// Of other errors the yaml package neither adds the line nor collects several.
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a duration such as 30s or 4m", n.Line, n.Value)}}
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes.
type Size int64

// UnmarshalYAML reads a number of bytes, or one of KiB, MiB or GiB.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	number, unit := n.Value, int64(1)
	for i, name := range []string{"KiB", "MiB", "GiB"} {
		if rest, ok := strings.CutSuffix(n.Value, name); ok {
			number, unit = strings.TrimSuffix(rest, " "), int64(1024)<<(10*i)
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || v < 0 || v > math.MaxInt64/unit {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a size such as 512MiB or 2GiB", n.Line, n.Value)}}
	}
	*s = Size(v * unit)
	return nil
}

// Prefix is an address with the length of its network's prefix.
type Prefix struct{ netip.Prefix }

// UnmarshalYAML reads a string such as 10.0.0.1/24.
func (p *Prefix) UnmarshalYAML(n *yaml.Node) error {
	v, err := netip.ParsePrefix(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not an address with a prefix length such as 10.0.0.1/24", n.Line, n.Value)}}
	}
	p.Prefix = v
	return nil
}

// Address is an IP address.
type Address struct{ netip.Addr }

// UnmarshalYAML reads a string such as 203.0.113.200.
func (a *Address) UnmarshalYAML(n *yaml.Node) error {
	v, err := netip.ParseAddr(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not an IP address such as 203.0.113.200", n.Line, n.Value)}}
	}
	a.Addr = v
	return nil
}
