package flowlog

import (
	"fmt"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// Reloads rename a rule so often that its slots come back for other rules. Each flow's rows name the rule
// that allowed it.
func TestRowsNameTheRuleThatASlotHad(t *testing.T) {
	folder := t.TempDir()
	r := newRig(t, midnight, Log{Version: NSG, Folder: folder})
	const reloads = 1400
	for n := range reloads {
		r.reload(testPolicy(fmt.Sprintf("r%d", n), "no-evil"))
		r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: addrA, SrcPort: uint16(5000 + n), DstPort: 80, Flags: "S"}))
		r.wait(time.Minute)
		r.minute()
	}
	if keys := len(r.engine.Registry().Keys()); keys > reloads {
		t.Fatalf("no slot has come back: %d", keys)
	}
	r.end()
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	begun := 0
	for _, row := range rows {
		if row.State != "B" || row.Rule == "UserRule_web" {
			continue
		}
		if begun++; row.Rule != fmt.Sprintf("UserRule_r%d", row.SrcPort-5000) {
			t.Errorf("the flow from port %d is told of %s", row.SrcPort, row.Rule)
		}
	}
	if begun != reloads {
		t.Errorf("%d flows are told of", begun)
	}
}
