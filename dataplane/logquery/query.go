// Package logquery finds rows in the flow logs of folders, those of nsgd and those that Azure keeps. It reads files as
// streams and remembers no more rows than are asked for.
package logquery

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/flowtuple"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/watch"
)

const (
	// DefaultLimit is used when Question.Limit is 0.
	DefaultLimit = 100
	// MaxLimit bounds the rows that one answer holds in memory, some tens of megabytes.
	MaxLimit = 100_000
	// MaxFiles is how many files one question reads at most.
	MaxFiles = 100_000
	// maxPrograms bounds the filters that are bound to a rule at a time.
	maxPrograms = 4096
)

// Question chooses rows.
type Question struct {
	// Paths are folders, whose files that end with .json are read, and files.
	Paths []string
	// Since and Until bound the rows' times, both included; zero: nothing does.
	Since, Until time.Time
	// Filter is an expression, see watch.Filter. No nic is known; rule and nsg are those of the row.
	Filter string
	// Limit is how many rows are listed at most, the newest, 1 to MaxLimit; 0: DefaultLimit.
	Limit int
}

// Result is what was found.
type Result struct {
	Files   int    `json:"files"`
	Records uint64 `json:"records"`
	Read    uint64 `json:"read"`    // rows
	Matched uint64 `json:"matched"` // rows that the question takes
	// Rows are the newest of them, the oldest first.
	Rows []Row `json:"rows"`
	// Faults are files that were not read to their end, and why; at most maxFaults of them.
	Faults     []string `json:"faults"`
	MoreFaults int      `json:"moreFaults"`
	// Malformed counts rows that are not understood.
	Malformed uint64 `json:"malformed"`
}

const maxFaults = 20

// Row is a row of a flow log: what one end of a flow has seen.
type Row struct {
	Time time.Time `json:"time"`
	// State is begin, continue, end or denied.
	State           string `json:"state"`
	Access          string `json:"access"`
	Direction       string `json:"direction"` // of the flow's beginning, at the end that the row is about
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
	// NetworkSecurityGroup is its name; in version 4 the id of the access control list.
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	RuleName             string `json:"ruleName"` // without UserRule_ and DefaultRule_
	Resource             string `json:"resource"` // the id of what is logged
	MAC                  string `json:"mac"`
	// Packets and bytes since the flow's last row, of continue and end.
	PacketsSent     uint64 `json:"packetsSent"` // by the source
	BytesSent       uint64 `json:"bytesSent"`
	PacketsReceived uint64 `json:"packetsReceived"` // by the source
	BytesReceived   uint64 `json:"bytesReceived"`
}

// Check says what is wrong with a question. The error begins with the field.
func (q *Question) Check() error {
	filter, err := watch.Parse(q.Filter)
	if err == nil {
		err = filter.Lacks(watch.Attachments)
	}
	switch {
	case err != nil:
		return err
	case len(q.Paths) == 0:
		return errors.New("folder: none is given")
	case q.Limit < 0 || q.Limit > MaxLimit:
		return fmt.Errorf("limit: %q: allowed are 1 to %d", strconv.Itoa(q.Limit), MaxLimit)
	case !q.Since.IsZero() && !q.Until.IsZero() && q.Until.Before(q.Since):
		return fmt.Errorf("until: %s: it is before since, %s", q.Until.Format(time.RFC3339), q.Since.Format(time.RFC3339))
	}
	return nil
}

// search is a question under way.
type search struct {
	question *Question
	filter   *watch.Filter
	programs map[watch.RuleName]*watch.Program
	result   *Result
	newest   rowHeap
}

// Find answers a question. A file that can't be read to its end is among the Faults; what was read of it counts.
func Find(ctx context.Context, q *Question) (*Result, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	s := &search{question: q, programs: map[watch.RuleName]*watch.Program{}, result: &Result{Rows: []Row{}, Faults: []string{}}}
	var err error
	if s.filter, err = watch.Parse(q.Filter); err != nil {
		return nil, err
	}
	for _, path := range q.Paths {
		if err := s.walk(ctx, path); err != nil {
			return nil, err
		}
	}
	s.result.Rows = append(s.result.Rows, s.newest...)
	slices.SortStableFunc(s.result.Rows, func(a, b Row) int { return a.Time.Compare(b.Time) })
	return s.result, nil
}

// Files are files by themselves, and those that end with .json of folders.
func Files(paths []string) (files []string, err error) {
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case len(files) == MaxFiles:
				return fmt.Errorf("%s: there are more than %d files: choose fewer", root, MaxFiles)
			case path == root && !entry.IsDir() || entry.Type().IsRegular() && filepath.Ext(path) == ".json":
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

// walk reads the files of a folder, or a file.
func (s *search) walk(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && path == root:
			return err
		case err != nil:
			s.fault(path, err)
			return nil
		case !entry.Type().IsRegular() || path != root && filepath.Ext(path) != ".json" || !s.question.mayHold(path):
			return nil
		case s.result.Files == MaxFiles:
			return fmt.Errorf("%s: it has more than %d files: choose fewer by --since and --until, or a folder in it", root, MaxFiles)
		}
		s.result.Files++
		if err := s.read(ctx, path); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s.fault(path, err)
		}
		return nil
	})
}

func (s *search) fault(path string, err error) {
	if len(s.result.Faults) == maxFaults {
		s.result.MoreFaults++
		return
	}
	s.result.Faults = append(s.result.Faults, fmt.Sprintf("%s: %v", path, err))
}

// hourPath is how Azure and nsgd name the folder of an hour, in UTC.
var hourPath = regexp.MustCompile(`y=(\d{4})/m=(\d{2})/d=(\d{2})/h=(\d{2})/`)

// mayHold reports that a file may have rows of the question's time. Rows are of their folder's hour, give or take one.
func (q *Question) mayHold(path string) bool {
	m := hourPath.FindStringSubmatch(filepath.ToSlash(path))
	if m == nil {
		return true
	}
	var n [4]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1]) // digits
	}
	hour := time.Date(n[0], time.Month(n[1]), n[2], n[3], 0, 0, 0, time.UTC)
	return (q.Since.IsZero() || hour.Add(2*time.Hour).After(q.Since)) && (q.Until.IsZero() || !hour.Add(-time.Hour).After(q.Until))
}

// looksEvery is how many rows are read between two looks at whether somebody still asks.
const looksEvery = 1024

func (s *search) read(ctx context.Context, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := flowtuple.NewReader(file)
	defer func() { s.result.Records += uint64(r.Records()) }()
	var row flowtuple.Row
	for i := 1; ; i++ {
		if i%looksEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := r.Next(&row)
		var malformed *flowtuple.Malformed
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &malformed):
			s.result.Malformed++
			continue
		case err != nil:
			return err
		}
		s.result.Read++
		s.take(&row)
	}
}

func (s *search) take(row *flowtuple.Row) {
	q := s.question
	if !q.Since.IsZero() && row.Time.Before(q.Since) || !q.Until.IsZero() && row.Time.After(q.Until) {
		return
	}
	shown := describe(row)
	if !s.program(watch.RuleName{NetworkSecurityGroup: shown.NetworkSecurityGroup, Rule: shown.RuleName}).Match(event(row)) {
		return
	}
	s.result.Matched++
	if len(s.newest) < cmp.Or(q.Limit, DefaultLimit) {
		heap.Push(&s.newest, shown)
	} else if s.newest[0].Time.Before(shown.Time) {
		s.newest[0] = shown
		heap.Fix(&s.newest, 0)
	}
}

// program is the filter for rows of one rule, whose slot is 0. Files say which rules there are, so few are remembered.
func (s *search) program(rule watch.RuleName) *watch.Program {
	p := s.programs[rule]
	if p == nil {
		if len(s.programs) == maxPrograms {
			clear(s.programs)
		}
		p = s.filter.CompileLoosely(&watch.Names{Rules: []watch.RuleName{rule}})
		s.programs[rule] = p
	}
	return p
}

// event is a row as filters see it.
func event(row *flowtuple.Row) *watch.Event {
	e := &watch.Event{From: -1, To: -1, N: 1}
	e.Packet.Tuple = row.Tuple
	switch row.State {
	case flowtuple.Denied:
		e.Drop = packet.DropRule
	case flowtuple.Begin:
		e.Standing = watch.Begins
	default:
		e.Standing = watch.InFlow
	}
	return e
}

var states = map[flowtuple.State]string{flowtuple.Begin: "begin", flowtuple.Continue: "continue", flowtuple.End: "end", flowtuple.Denied: "denied"}

func describe(row *flowtuple.Row) Row {
	shown := Row{
		Time: row.Time, State: states[row.State], Access: "Allow", Direction: "Inbound", Protocol: packet.ProtocolName(row.Proto),
		Source: row.Src.String(), SourcePort: row.SrcPort, Destination: row.Dst.String(), DestinationPort: row.DstPort,
		NetworkSecurityGroup: row.ACL, RuleName: row.Rule, Resource: row.Resource, MAC: row.MAC,
		PacketsSent: row.Packets[0], BytesSent: row.Bytes[0], PacketsReceived: row.Packets[1], BytesReceived: row.Bytes[1],
	}
	if row.State == flowtuple.Denied {
		shown.Access = "Deny"
	}
	if row.Outbound {
		shown.Direction = "Outbound"
	}
	if row.Version < 4 {
		shown.NetworkSecurityGroup = row.Resource[strings.LastIndexByte(row.Resource, '/')+1:]
	}
	for _, prefix := range []string{"UserRule_", "DefaultRule_"} {
		shown.RuleName = strings.TrimPrefix(shown.RuleName, prefix)
	}
	return shown
}

// rowHeap has the oldest row first.
type rowHeap []Row

func (h rowHeap) Len() int           { return len(h) }
func (h rowHeap) Less(i, j int) bool { return h[i].Time.Before(h[j].Time) }
func (h rowHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *rowHeap) Push(x any) { *h = append(*h, x.(Row)) }

// Pop implements heap.Interface.
func (h *rowHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
