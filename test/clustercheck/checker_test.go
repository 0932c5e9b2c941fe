package clustercheck

import (
	"slices"
	"strings"
	"testing"
)

// A checker that finds nothing proves nothing: each of these histories has one thing that must never be.
func TestTheCheckerFindsWhatMustNeverBe(t *testing.T) {
	first := []event{
		{T: 1, Host: "a", PID: 1, Kind: started},
		{T: 2, Kind: applying, Generation: 1, Text: "one"}, {T: 3, Kind: headed, Generation: 1, Text: "one"},
		{T: 4, Host: "a", PID: 1, Kind: carrying, Generation: 1, Text: "one", NICs: []string{"nic1"}},
		{T: 5, Host: "a", PID: 1, Kind: carried, Generation: 1, Text: "one", NICs: []string{"nic1"}},
		{T: 6, Host: "a", PID: 1, Kind: fencing, Until: 100}, {T: 7, Host: "a", PID: 1, Kind: fenced, Until: 100},
		{T: 8, Host: "b", PID: 2, Kind: started},
	}
	moving := []event{
		{T: 9, Host: "b", PID: 2, Kind: fenced, Until: 1000}, {T: 60, Host: "a", PID: 1, Kind: fencing, Until: 0},
		{T: 80, Host: "b", PID: 2, Kind: carrying, Generation: 1, Text: "one", NICs: []string{"nic1"}}, {T: 90, Host: "a", PID: 1, Kind: fenced, Until: 0},
	}
	for _, tt := range []struct {
		name  string
		more  []event
		fault string
	}{
		{"nothing", nil, ""},
		{"the fence of a has passed", []event{
			{T: 101, Host: "b", PID: 2, Kind: fenced, Until: 200}, {T: 102, Host: "b", PID: 2, Kind: carried, Generation: 1, Text: "one", NICs: []string{"nic1"}}}, ""},
		{"a was ended", []event{{T: 20, Host: "a", PID: 1, Kind: ended},
			{T: 21, Host: "b", PID: 2, Kind: fenced, Until: 200}, {T: 22, Host: "b", PID: 2, Kind: carried, Generation: 1, Text: "one", NICs: []string{"nic1"}}}, ""},
		{"b begins before a's fence", []event{
			{T: 20, Host: "b", PID: 2, Kind: fenced, Until: 200}, {T: 99, Host: "b", PID: 2, Kind: carrying, Generation: 1, Text: "one", NICs: []string{"nic1"}}}, "nic1: b carries from 99ns and a until 100ns"},
		{"a fence that is being moved counts where it was", moving, "nic1: b carries from 80ns and a until 90ns"},
		{"a froze it, and b took it", []event{{T: 20, Host: "a", PID: 1, Kind: frozen}, {T: 21, Host: "b", PID: 2, Kind: fenced, Until: 200},
			{T: 22, Host: "b", PID: 2, Kind: carrying, Generation: 1, Text: "one", NICs: []string{"nic1"}}}, ""},
		{"a froze it, and thawed it when b had it", []event{{T: 20, Host: "a", PID: 1, Kind: frozen}, {T: 21, Host: "b", PID: 2, Kind: fenced, Until: 200},
			{T: 22, Host: "b", PID: 2, Kind: carrying, Generation: 1, Text: "one", NICs: []string{"nic1"}}, {T: 30, Host: "a", PID: 1, Kind: carried, Generation: 1, Text: "one", NICs: []string{"nic1"}}},
			"nic1: a carries from 30ns and b until 150ns"},
		{"not applied", []event{{T: 20, Host: "a", PID: 1, Kind: carried, Generation: 2, Text: "two"}}, "which nobody has applied"},
		{"not committed", []event{{T: 19, Kind: applying, Generation: 2, Text: "two"}, {T: 20, Host: "a", PID: 1, Kind: carried, Generation: 2, Text: "two"}}, "which was not committed"},
		{"of a canary", []event{{T: 19, Kind: applying, Generation: 2, Text: "two", Canary: []string{"a"}}, {T: 20, Host: "a", PID: 1, Kind: carried, Generation: 2, Text: "two"}}, ""},
		{"another text", []event{{T: 20, Host: "a", PID: 1, Kind: carried, Generation: 1, Text: "two"}}, "which nobody has applied"},
		{"back", []event{{T: 19, Kind: applying, Generation: 2, Text: "two"}, {T: 20, Kind: headed, Generation: 2, Text: "two"}, {T: 21, Host: "a", PID: 1, Kind: carried, Generation: 2, Text: "two"},
			{T: 22, Host: "a", PID: 1, Kind: carried, Generation: 1, Text: "one"}}, "a carries generation 1 after generation 2"},
		{"the head goes back", []event{{T: 19, Kind: applying, Generation: 2, Text: "two"}, {T: 20, Kind: headed, Generation: 2, Text: "two"}, {T: 21, Kind: headed, Generation: 1, Text: "one"}}, "the head was generation 2 and is 1"},
		{"refused and current", []event{{T: 19, Kind: applying, Generation: 2, Text: "two"}, {T: 20, Kind: rejected, Generation: 2, Text: "two"}, {T: 21, Kind: headed, Generation: 2, Text: "two"}}, "was refused and is current"},
	} {
		f := check(slices.Concat(first, tt.more), 150)
		if text := strings.Join(f.faults, "\n"); tt.fault == "" && text != "" || !strings.Contains(text, tt.fault) {
			t.Errorf("%s: found %q, want %q", tt.name, text, tt.fault)
		}
	}
}
