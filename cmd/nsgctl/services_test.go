package main

import "testing"

func TestParsePort(t *testing.T) {
	tests := []struct {
		name, text string
		want       uint16
		ok         bool
	}{
		{"a number", "443", 443, true},
		{"IANA's name of a service", "https", 443, true},
		{"in any case", "HTTPS", 443, true},
		{"a name that people use", "rdp", 3389, true},
		{"IANA's name of the same", "ms-wbt-server", 3389, true},
		{"a name of IANA's that nobody means", "httpx", 0, false},
		{"a service of UDP alone", "syslog", 514, true},
		{"the last port", "65535", 65535, true},
		{"a number that is too large", "65536", 0, false},
		{"a name that nobody has", "htpps", 0, false},
		{"nothing", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := parsePort(tt.text); got != tt.want || ok != tt.ok {
				t.Errorf("parsePort(%q) = %d, %v; want %d, %v", tt.text, got, ok, tt.want, tt.ok)
			}
		})
	}
}
