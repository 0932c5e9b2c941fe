package clustercheck

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/continuity"
)

// event is something that happened. Events of all processes have the time of one clock: this machine's since its start.
type event struct {
	T    time.Duration `json:"t"`
	Host string        `json:"host,omitempty"`
	PID  int           `json:"pid,omitempty"`
	Kind kind          `json:"kind"`
	// Until is where the fence stands, by this machine's clock.
	Until time.Duration `json:"until,omitempty"`
	// NICs are those attached from now on.
	NICs       []string `json:"nics,omitempty"`
	Generation uint64   `json:"generation,omitempty"`
	Text       string   `json:"text,omitempty"`
	Canary     []string `json:"canary,omitempty"`
	Error      string   `json:"error,omitempty"`
}

type kind string

// What a host does is told before and after: in between both may be so.
const (
	started  kind = "started"  // a process; it has nothing attached
	wiped    kind = "wiped"    // its folder, before it started
	ended    kind = "ended"    // a process, for certain
	fencing  kind = "fencing"  // the fence is about to be at Until
	fenced   kind = "fenced"   // the fence is at Until
	carrying kind = "carrying" // a generation with NICs is about to be carried
	carried  kind = "carried"  // it is
	refused  kind = "refused"  // it is not, and the one from before is
	frozen   kind = "frozen"   // only NICs are carried: another one is about to move to another host
	applying kind = "applying" // Generation has Text; Canary may carry it early
	applied  kind = "applied"  // for certain
	rejected kind = "rejected" // a host has refused it: it was not committed
	unknown  kind = "unknown"  // it may be committed
	headed   kind = "headed"   // etcd's head names Generation
	forgot   kind = "forgot"   // etcd has been emptied
	happened kind = "happened" // Text says what, to Host
)

// journal takes events down in a file, each one before what follows it.
type journal struct {
	mu   sync.Mutex
	file *os.File
	host string
}

func openJournal(path, host string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	return &journal{file: file, host: host}, err
}

// add gives the event its time. A journal that can't be written proves nothing.
func (j *journal) add(e event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.T = continuity.SinceBoot()
	if j.host != "" {
		e.Host, e.PID = j.host, os.Getpid()
	}
	line, err := json.Marshal(&e)
	if err == nil {
		_, err = j.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(err)
	}
}

// readJournal reads what there is. The last line may be one that a killed process has begun.
func readJournal(t testing.TB, path string) (list []event) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
			list = append(list, e)
		}
	}
	return list
}
