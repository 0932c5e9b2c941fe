package flowlog

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/nsgd/nsgd/dataplane/flowtuple"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// holdReader holds the reader that nsgctl replay uses to the one of the tests, on records that the package has written.
func holdReader(t *testing.T, text []byte, want []flowlogtest.Row) {
	t.Helper()
	r := flowtuple.NewReader(bytes.NewReader(text))
	for i := range want {
		var row flowtuple.Row
		if err := r.Next(&row); err != nil {
			t.Fatalf("row %d of %d: %v", i, len(want), err)
		}
		w := &want[i]
		got := flowlogtest.Row{Version: row.Version, Resource: w.Resource, Target: w.Target, MAC: row.MAC, ACL: row.ACL, Rule: row.Rule, Record: w.Record,
			Time: row.Time, Src: row.Src.Netip(), Dst: row.Dst.Netip(), SrcPort: row.SrcPort, DstPort: row.DstPort, Proto: row.Proto,
			Direction: "I", State: string(row.State), Encryption: w.Encryption, Empty: w.Empty,
			Counters: [4]uint64{row.Packets[0], row.Bytes[0], row.Packets[1], row.Bytes[1]}}
		if row.Outbound {
			got.Direction = "O"
		}
		if got != *w {
			t.Fatalf("row %d is read as\n%+v, is\n%+v", i, got, *w)
		}
	}
	if err := r.Next(&flowtuple.Row{}); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last row: %v", err)
	}
}
