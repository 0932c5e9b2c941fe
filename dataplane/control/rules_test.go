package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/arm/armtest"
)

// writes notes the longest write, and fails after so many of them.
type writes struct {
	bytes.Buffer
	count, fails, longest int
}

var errWritten = errors.New("the reader is gone")

func (w *writes) Write(b []byte) (int, error) {
	w.longest = max(w.longest, len(b))
	if w.count++; w.count == w.fails {
		return 0, errWritten
	}
	return w.Buffer.Write(b)
}

// The rules of a large policy were one text of 500 MB, whose reader had ten seconds.
func TestRulesAreWrittenAFewAtATime(t *testing.T) {
	dir := t.TempDir()
	p := armtest.Policy{Groups: 2, Rules: 500, Interfaces: 2}
	if err := p.Write(dir); err != nil {
		t.Fatal(err)
	}
	loaded, err := inspect.NewPolicyFiles("", dir).Open(topology.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []inspect.RuleFilter{{}, {NetworkSecurityGroup: "many0"}} {
		want, err := inspect.Rules(loaded.Snapshot, nil, filter)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := inspect.StreamRules(loaded.Snapshot, nil, filter)
		if err != nil {
			t.Fatal(err)
		}
		var w writes
		if err := writeRules(&w, stream); err != nil || w.longest > rulesBuffer || w.count < 3 {
			t.Errorf("%v: %d writes, the longest of %d bytes", err, w.count, w.longest)
		}
		var got *inspect.RuleList
		if err := json.Unmarshal(w.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got.Rules) < 500 {
			t.Errorf("%d rules, -want +got:\n%s", len(got.Rules), diff)
		}
		w = writes{fails: 2}
		if err := writeRules(&w, stream); !errors.Is(err, errWritten) || w.count != 2 {
			t.Errorf("after a reader is gone: %d writes: %v", w.count, err)
		}
	}
}

func TestAnAnswerThatIsCutOffSaysWhy(t *testing.T) {
	folder, err := os.MkdirTemp("", "k") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	l, err := net.Listen("unix", filepath.Join(folder, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))
			c.Close()
		}
	}()
	client := NewClient(l.Addr().String())
	defer client.Close()
	for most, want := range map[int64]string{0: "or had more readers than it may", 1000: "more than 1000 bytes"} {
		client.most = most
		if _, err := client.Rules(t.Context(), inspect.RuleFilter{}); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d: %v", most, err)
		}
	}
}
