// Package flowlogtest reads flow logs for tests. It follows Azure's documents and shares no code
// with the package that writes them.
package flowlogtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Row is a flow tuple with the fields of the record around it.
type Row struct {
	Version  int    // 2 or 4
	Resource string // the NSG's id, or the flow log's
	Target   string // of version 4
	MAC      string
	ACL      string // of version 4
	Rule     string
	Record   time.Time
	Time     time.Time // of whole seconds in version 2

	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	Proto            uint8
	Direction        string // I or O
	State            string // B, C, E or D
	Encryption       string // of version 4
	// Counters are packets and bytes from source to destination, then packets and bytes back.
	Counters [4]uint64
	Empty    bool // the counters are empty
}

// record holds the fields of either version.
type record struct {
	Time          string `json:"time"`
	Category      string `json:"category"`
	OperationName string `json:"operationName"`

	SystemID   string `json:"systemId"`
	ResourceID string `json:"resourceId"`
	Properties *struct {
		Version int `json:"Version"`
		Flows   []struct {
			Rule  string `json:"rule"`
			Flows []struct {
				MAC        string   `json:"mac"`
				FlowTuples []string `json:"flowTuples"`
			} `json:"flows"`
		} `json:"flows"`
	} `json:"properties"`

	FlowLogVersion    int    `json:"flowLogVersion"`
	FlowLogGUID       string `json:"flowLogGUID"`
	MACAddress        string `json:"macAddress"`
	FlowLogResourceID string `json:"flowLogResourceID"`
	TargetResourceID  string `json:"targetResourceID"`
	FlowRecords       *struct {
		Flows []struct {
			ACLID      string `json:"aclID"`
			FlowGroups []struct {
				Rule       string   `json:"rule"`
				FlowTuples []string `json:"flowTuples"`
			} `json:"flowGroups"`
		} `json:"flows"`
	} `json:"flowRecords"`
}

var (
	macForm  = regexp.MustCompile(`^[0-9A-F]{12}$`)
	guidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

// ReadFolder reads all files below a folder, the earlier hours first.
func ReadFolder(folder string) ([]Row, error) {
	var paths []string
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(paths) // by place, then by hour
	var rows []Row
	for _, path := range paths {
		relative, err := filepath.Rel(folder, path)
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		more, err := readFile(relative, text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", relative, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func readFile(path string, text []byte) (rows []Row, err error) {
	var file struct {
		Records []json.RawMessage `json:"records"`
	}
	if err := strictly(text, &file); err != nil {
		return nil, err
	}
	for i, raw := range file.Records {
		more, err := ReadRecord(raw)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		for _, r := range more {
			if want := pathOf(&r); want != path {
				return nil, fmt.Errorf("record %d belongs to %s", i, want)
			}
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// pathOf is the path of the file that a row's record belongs to.
func pathOf(r *Row) string {
	hour := r.Record.UTC().Format("/y=2006/m=01/d=02/h=15/m=00/macAddress=") + r.MAC + "/PT1H.json"
	if r.Version == 2 {
		return "insights-logs-networksecuritygroupflowevent/resourceId=" + r.Resource + hour
	}
	s := strings.Split(r.Resource, "/") // "", SUBSCRIPTIONS, S, RESOURCEGROUPS, RG, PROVIDERS, MICROSOFT.NETWORK, NETWORKWATCHERS, NW, FLOWLOGS, NAME
	if len(s) != 11 {
		return "no path: " + r.Resource
	}
	return "insights-logs-flowlogflowevent/flowLogResourceID=/" + s[2] + "_" + s[4] + "/" + s[8] + "_" + s[10] + hour
}

// ReadLines reads printed records, one a line.
func ReadLines(text []byte) (rows []Row, err error) {
	for line := range bytes.Lines(text) {
		more, err := ReadRecord(line)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// ReadRecord reads one record.
func ReadRecord(raw []byte) (rows []Row, err error) {
	var r record
	if err := strictly(raw, &r); err != nil {
		return nil, err
	}
	at, err := time.Parse("2006-01-02T15:04:05.0000000Z", r.Time)
	if err != nil {
		return nil, err
	}
	if r.Properties != nil {
		return readNSG(&r, at)
	}
	if r.FlowRecords == nil {
		return nil, errors.New("neither properties nor flowRecords")
	}
	return readVNet(&r, at)
}

func readNSG(r *record, at time.Time) (rows []Row, err error) {
	if r.Category != "NetworkSecurityGroupFlowEvent" || r.OperationName != "NetworkSecurityGroupFlowEvents" || r.Properties.Version != 2 ||
		!guidForm.MatchString(r.SystemID) || r.ResourceID != strings.ToUpper(r.ResourceID) {
		return nil, fmt.Errorf("no record of version 2: %+v", r)
	}
	for _, byRule := range r.Properties.Flows {
		for _, byMAC := range byRule.Flows {
			if !macForm.MatchString(byMAC.MAC) || len(byMAC.FlowTuples) == 0 {
				return nil, fmt.Errorf("mac %q, %d tuples", byMAC.MAC, len(byMAC.FlowTuples))
			}
			for _, tuple := range byMAC.FlowTuples {
				row := Row{Version: 2, Resource: r.ResourceID, MAC: byMAC.MAC, Rule: byRule.Rule, Record: at}
				if err := row.readNSGTuple(strings.Split(tuple, ",")); err != nil {
					return nil, fmt.Errorf("%q: %w", tuple, err)
				}
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

func readVNet(r *record, at time.Time) (rows []Row, err error) {
	if r.Category != "FlowLogFlowEvent" || r.OperationName != "FlowLogFlowEvent" || r.FlowLogVersion != 4 ||
		!guidForm.MatchString(r.FlowLogGUID) || !macForm.MatchString(r.MACAddress) {
		return nil, fmt.Errorf("no record of version 4: %+v", r)
	}
	for _, byACL := range r.FlowRecords.Flows {
		if !guidForm.MatchString(byACL.ACLID) && byACL.ACLID != "unspecified" {
			return nil, fmt.Errorf("aclID %q", byACL.ACLID)
		}
		for _, byRule := range byACL.FlowGroups {
			if len(byRule.FlowTuples) == 0 {
				return nil, errors.New("no tuples")
			}
			for _, tuple := range byRule.FlowTuples {
				row := Row{Version: 4, Resource: r.FlowLogResourceID, Target: r.TargetResourceID, MAC: r.MACAddress, ACL: byACL.ACLID, Rule: byRule.Rule, Record: at}
				if err := row.readVNetTuple(strings.Split(tuple, ",")); err != nil {
					return nil, fmt.Errorf("%q: %w", tuple, err)
				}
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

// readNSGTuple reads epochSeconds,src,dst,sport,dport,T|U,I|O,A|D,B|C|E and four counters.
func (r *Row) readNSGTuple(f []string) error {
	if len(f) != 13 {
		return fmt.Errorf("%d fields, not 13", len(f))
	}
	proto, known := map[string]uint8{"T": 6, "U": 17}[f[5]]
	if !known || f[7] != "A" && f[7] != "D" || f[8] != "B" && f[8] != "C" && f[8] != "E" || f[7] == "D" && f[8] != "B" {
		return errors.New("protocol, decision or state")
	}
	r.Proto, r.State = proto, f[8]
	if f[7] == "D" {
		r.State = "D"
	}
	r.Empty = strings.Join(f[9:], "") == ""
	if r.Empty != (f[8] == "B") {
		return errors.New("counters are for C and E only")
	}
	return r.readCommon(f, time.Second, f[6], f[9:])
}

// readVNetTuple reads epochMillis,src,dst,sport,dport,proto,I|O,B|C|E|D,encryption and four counters.
func (r *Row) readVNetTuple(f []string) error {
	if len(f) != 13 {
		return fmt.Errorf("%d fields, not 13", len(f))
	}
	proto, err := strconv.ParseUint(f[5], 10, 8)
	if err != nil || len(f[7]) != 1 || !strings.Contains("BCED", f[7]) {
		return errors.New("protocol or state")
	}
	r.Proto, r.State, r.Encryption = uint8(proto), f[7], f[8]
	return r.readCommon(f, time.Millisecond, f[6], f[9:])
}

func (r *Row) readCommon(f []string, unit time.Duration, direction string, counters []string) error {
	since, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return err
	}
	r.Time = time.UnixMilli(since * int64(unit/time.Millisecond)).UTC()
	if r.Src, err = netip.ParseAddr(f[1]); err != nil {
		return err
	}
	if r.Dst, err = netip.ParseAddr(f[2]); err != nil {
		return err
	}
	for i, port := range []*uint16{&r.SrcPort, &r.DstPort} {
		n, err := strconv.ParseUint(f[3+i], 10, 16)
		if err != nil {
			return err
		}
		*port = uint16(n)
	}
	if r.Direction = direction; direction != "I" && direction != "O" {
		return errors.New("direction")
	}
	if r.Empty {
		return nil
	}
	for i, text := range counters {
		if r.Counters[i], err = strconv.ParseUint(text, 10, 64); err != nil {
			return err
		}
	}
	return nil
}
