package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// A service tag file without a change number was shown as "change number , 4 tags".
func TestStatusLeavesOutAChangeNumberThatTheFileLacks(t *testing.T) {
	for number, want := range map[string]string{"": "tags.json: 4 tags", "376": "tags.json: change number 376, 4 tags"} {
		var out strings.Builder
		if err := statusTable(&out, &inspect.Status{ServiceTags: &inspect.ServiceTags{File: "tags.json", ChangeNumber: number, Tags: 4}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestStatusShowsWhetherAStandbyIsThere(t *testing.T) {
	for state, want := range map[string]string{"": "", "prepared": "standby prepared", "none": "standby none: should nsgd fail"} {
		var out strings.Builder
		if err := statusTable(&out, &inspect.Status{Standby: state}); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, want) || strings.Contains(text, "standby") != (state != "") {
			t.Errorf("%q: %q is missing in\n%s", state, want, out.String())
		}
	}
}

func TestStatusShowsTheAgeOfServiceTags(t *testing.T) {
	var out strings.Builder
	written := time.Now().Add(-50 * time.Hour)
	if err := statusTable(&out, &inspect.Status{ServiceTags: &inspect.ServiceTags{File: "tags.json"}, ServiceTagsWritten: &written}); err != nil {
		t.Fatal(err)
	}
	if want := written.Format(time.RFC3339) + ", 2 days ago"; !strings.Contains(out.String(), want) {
		t.Errorf("%q is missing in\n%s", want, out.String())
	}
}

func TestStatusShowsBackendsAndWhyTheyAreNotProbed(t *testing.T) {
	var out strings.Builder
	s := &inspect.Status{Unprobed: "nobody asks", Backends: []inspect.Backend{
		{LoadBalancer: "lb", Probe: "http", NetworkInterface: "vm-nic", Address: "10.0.0.4", Protocol: "Http", Port: 80, Reason: "HTTP status 503"},
		{LoadBalancer: "lb", Probe: "http", NetworkInterface: "vm2-nic", Address: "10.0.0.5", Protocol: "Http", Port: 80, Up: true}}}
	if err := statusTable(&out, s); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"health probes nobody asks", "lb http Http vm-nic 10.0.0.4:80 down - HTTP status 503", "lb http Http vm2-nic 10.0.0.5:80 up - -"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := statusTable(&out, &inspect.Status{}); err != nil || strings.Contains(out.String(), "BACKEND") {
		t.Errorf("%v: backends are shown where there are none:\n%s", err, out.String())
	}
}

func TestStatusShowsWhatAGuestUsesAndWhatIsWrong(t *testing.T) {
	var out strings.Builder
	addr, last := netip.MustParseAddr, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &inspect.Status{Interfaces: []inspect.InterfaceStatus{
		{Interface: "tap1", State: "attached", Addresses: []netip.Addr{addr("10.0.1.4"), addr("fd00::4")}, Used: []netip.Addr{addr("10.0.1.4")},
			Strangers: []netip.Addr{addr("10.0.1.9")}, LastOut: &last, Trouble: "nothing comes"},
		{Interface: "nsgd-rest"},
	}}
	if err := statusTable(&out, s); err != nil {
		t.Fatal(err)
	}
	const want = "BEHIND ADDRESSES STRANGERS LAST OUT LAST IN TROUBLE tap1 10.0.1.4, fd00::4 (unused) 10.0.1.9 03:04:05 - nothing comes"
	if text := strings.Join(strings.Fields(out.String()), " "); !strings.HasSuffix(text, want) {
		t.Errorf("%s", out.String())
	}
}

func TestStatusShowsWhatDHCPHasAnswered(t *testing.T) {
	var out strings.Builder
	s := &inspect.Status{Interfaces: []inspect.InterfaceStatus{{Interface: "tap1", State: "attached", DHCP: &inspect.DHCPUse{Answered: 5, Ignored: 2, Limited: 1}}, {Interface: "tap2"}}}
	if err := statusTable(&out, s); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(strings.Fields(out.String()), " "); !strings.HasSuffix(text, "DHCP ON NAMESPACE ANSWERED IGNORED LIMITED tap1 - 5 2 1") {
		t.Errorf("%s", out.String())
	}
}
