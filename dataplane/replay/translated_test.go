package replay

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/deploy/lab"
)

// Captured packets are as they came in, so a policy that translates does it once more: answers from the
// private address belong to the flow that came for the public one.
func TestPacketsForAPublicAddressAreTranslatedAgain(t *testing.T) {
	const public, private, port = "198.51.100.20", "10.1.2.4", 50000
	dir := t.TempDir()
	if err := os.CopyFS(dir, lab.Translation()); err != nil {
		t.Fatal(err)
	}
	set, err := inspect.NewPolicyFiles("", dir+"/translation").Load()
	if err != nil {
		t.Fatal(err)
	}
	answer := packettest.TCP(packettest.Spec{Src: private, Dst: world, SrcPort: 80, DstPort: port, Flags: "SA"})
	file := ngFile(t, []string{"internet", "vm-nic"},
		sent{0, 0, syn(world, public, port, 80), 0},
		sent{time.Millisecond, 1, answer, 0},
		sent{2 * time.Millisecond, 0, syn(world, public, port, 81), 0},
		sent{3 * time.Millisecond, 1, syn(private, world, port, 443), 0})
	lines, s := play(t, Options{Policy: set, Top: 10}, file)
	want := []string{
		"internet>vm-nic Allow newFlow vm-nsg/AllowHttpToPrivateInBound",
		"vm-nic>internet Allow flow vm-nsg/AllowHttpToPrivateInBound",
		"internet> Deny rule_deny vm-nsg/DenyAllInBound",
		"vm-nic>internet Allow newFlow vm-nsg/AllowInternetOutBound",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	translated := map[inspect.FlowTuple]bool{}
	for _, f := range s.Flows.Top {
		if f.Translated != nil {
			translated[*f.Translated] = true
		}
	}
	if in, out := (inspect.FlowTuple{Source: world, SourcePort: port, Destination: private, DestinationPort: 80}),
		(inspect.FlowTuple{Source: public, SourcePort: port, Destination: world, DestinationPort: 443}); !translated[in] || !translated[out] || s.Flows.Created != 2 {
		t.Errorf("%d flows, translated %v", s.Flows.Created, translated)
	}
}
