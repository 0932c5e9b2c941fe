package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/gopacket/layers"
	"github.com/spf13/cobra"
)

// everydayServices are names that people use, beside IANA's of ports below 1024. IANA's others are left out:
// "httpx" is one of them, and seldom what was meant.
var everydayServices = map[string]uint16{
	"dns": 53, "smb": 445, "openvpn": 1194, "ms-sql-s": 1433, "mssql": 1433, "sqlserver": 1433, "oracle": 1521, "l2tp": 1701, "radius": 1812,
	"mqtt": 1883, "nfs": 2049, "docker": 2375, "etcd": 2379, "mysql": 3306, "ms-wbt-server": 3389, "rdp": 3389, "stun": 3478, "ipsec-nat-t": 4500,
	"sip": 5060, "sips": 5061, "postgres": 5432, "postgresql": 5432, "amqps": 5671, "amqp": 5672, "vnc": 5900, "winrm": 5985, "wsman": 5985,
	"winrms": 5986, "wsmans": 5986, "redis": 6379, "kubernetes": 6443, "http-alt": 8080, "https-alt": 8443, "kafka": 9092, "elasticsearch": 9200,
	"memcached": 11211, "mongodb": 27017,
}

// services are the ports of all names, in lower case. A name that IANA gave several ports means the lowest.
var services = sync.OnceValue(func() map[string]uint16 {
	ports := maps.Clone(everydayServices)
	add := func(name string, port uint16) {
		name = strings.ToLower(name)
		before, known := ports[name]
		if _, everyday := everydayServices[name]; port < 1024 && !everyday && (!known || port < before) {
			ports[name] = port
		}
	}
	for port, name := range layers.TCPPortNames {
		add(name, uint16(port))
	}
	for port, name := range layers.UDPPortNames {
		add(name, uint16(port))
	}
	return ports
})

// portWords says what parsePort takes.
const portWords = "0 to 65535 and names of services such as https"

// parsePort is a port: a number, or the name of a service in any case.
func parsePort(text string) (port uint16, ok bool) {
	if n, err := strconv.ParseUint(text, 10, 16); err == nil {
		return uint16(n), true
	}
	port, ok = services()[strings.ToLower(text)]
	return port, ok
}

// portNumber is text with a service's name as its port. Other text stays: whoever reads it refuses it.
func portNumber(text string) string {
	if port, ok := parsePort(text); ok {
		return fmt.Sprint(port)
	}
	return text
}

// serviceNames are the names for a completion.
func serviceNames(*cobra.Command) []string { return slices.Sorted(maps.Keys(services())) }
