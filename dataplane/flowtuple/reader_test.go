package flowtuple

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const (
	nsgRecord = `{"time":"2026-03-01T12:00:35.3899262Z","systemId":"0a1b2c3d-0000-4000-8000-00000000000f","category":"NetworkSecurityGroupFlowEvent",
		"resourceId":"/SUBSCRIPTIONS/S/NETWORKSECURITYGROUPS/WEB","operationName":"NetworkSecurityGroupFlowEvents","properties":{"Version":%d,"flows":[
		{"rule":"UserRule_https","flows":[{"mac":"000D3AF87856","flowTuples":[%s]}]}]}}`
	vnetRecord = `{"time":"2026-03-01T12:00:52.5625085Z","flowLogVersion":4,"flowLogGUID":"g","macAddress":"00-0d-3a-f8-78-56","category":"FlowLogFlowEvent",
		"flowLogResourceID":"/SUBSCRIPTIONS/S/FLOWLOGS/X","targetResourceID":"/subscriptions/s/virtualNetworks/v1","operationName":"FlowLogFlowEvent",
		"flowRecords":{"flows":[{"aclID":"guid","flowGroups":[{"rule":"DefaultRule_AllowInternetOutBound","flowTuples":[%s]}]}]}}`
	begins    = `"1772366435,203.0.113.9,10.0.0.4,59831,443,T,I,A,B,,,,"`
	continues = `"1772366495,203.0.113.9,10.0.0.4,59831,443,T,I,A,C,3,300,2,200"`
	denied    = `"1772366435,203.0.113.9,10.0.0.4,59832,22,U,I,D,B,,,,"`
	vnetRow   = `"1772366435599,10.0.0.6,52.239.184.180,23956,443,6,O,E,NX,3,767,2,1580"`
)

func readAll(in io.Reader) (lines []string, err error) {
	r := NewReader(in)
	for {
		var row Row
		err := r.Next(&row)
		var bad *Malformed
		switch {
		case errors.Is(err, io.EOF):
			return lines, nil
		case errors.As(err, &bad):
			lines = append(lines, bad.Error())
		case err != nil:
			return lines, err
		default:
			lines = append(lines, fmt.Sprintf("v%d %s %s %s %s %d %s:%d>%s:%d outbound=%v %c %v %v", row.Version, row.MAC, row.Rule, row.Time.Format("15:04:05.000"), row.ACL,
				row.Proto, row.Src, row.SrcPort, row.Dst, row.DstPort, row.Outbound, row.State, row.Packets, row.Bytes))
		}
	}
}

func TestRows(t *testing.T) {
	v1 := fmt.Sprintf(nsgRecord, 1, `"1772366435,203.0.113.9,10.0.0.4,59831,443,T,I,A"`)
	v2 := fmt.Sprintf(nsgRecord, 2, begins+","+continues+","+denied)
	v4 := fmt.Sprintf(vnetRecord, vnetRow)
	one := "v1 000D3AF87856 UserRule_https 12:00:35.000  6 203.0.113.9:59831>10.0.0.4:443 outbound=false B [0 0] [0 0]"
	two := []string{
		"v2 000D3AF87856 UserRule_https 12:00:35.000  6 203.0.113.9:59831>10.0.0.4:443 outbound=false B [0 0] [0 0]",
		"v2 000D3AF87856 UserRule_https 12:01:35.000  6 203.0.113.9:59831>10.0.0.4:443 outbound=false C [3 2] [300 200]",
		"v2 000D3AF87856 UserRule_https 12:00:35.000  17 203.0.113.9:59832>10.0.0.4:22 outbound=false D [0 0] [0 0]",
	}
	four := "v4 000D3AF87856 DefaultRule_AllowInternetOutBound 12:00:35.599 guid 6 10.0.0.6:23956>52.239.184.180:443 outbound=true E [3 2] [767 1580]"
	tests := []struct {
		name, file string
		want       []string
		err        string
	}{
		{"a file without records", `{"records":[]}`, nil, ""},
		{"nothing", ``, nil, ""},
		{"version 1", `{"records":[` + v1 + `]}`, []string{one}, ""},
		{"version 2", `{"records":[` + v2 + `]}`, two, ""},
		{"version 4", `{"records":[` + v4 + `]}`, []string{four}, ""},
		{"several records, and fields around them", `{"a":1,"records":[` + v4 + `,` + v1 + `],"b":{"c":[2]}}`, []string{four, one}, ""},
		{"records one after the other", v4 + "\n" + v1 + "\n", []string{four, one}, ""},
		{"files one after the other", `{"records":[` + v4 + `]}{"records":[` + v1 + `]}`, []string{four, one}, ""},
		{"a file that is cut off in a record", `{"records":[` + v4 + `,` + v1[:len(v1)-9], []string{four}, "the file ends in the middle of a record"},
		{"a file that is cut off between records", `{"records":[` + v4, []string{four}, "the file ends in the middle of a record"},
		{"a single record that is cut off", v4[:len(v4)-2], nil, "the file ends in the middle of a record"},
		{"another version", `{"records":[` + strings.Replace(v1, `"Version":1`, `"Version":3`, 1) + `]}`, nil, "version 3"},
		{"records of something else", `{"records":[{"category":"Other"}]}`, nil, `neither properties nor flowRecords: it is of no flow log (category "Other")`},
		{"no object", `[1]`, nil, "allowed is an object with records"},
		{"records that are no list", `{"records":{}}`, nil, "records: allowed is a list"},
		{"rows that are not understood, between others", `{"records":[` + fmt.Sprintf(nsgRecord, 2, `"x",`+begins+`,"1772366435,a,10.0.0.4,59831,443,T,I,A,B,,,,"`) + `]}`,
			[]string{`record 1: flow tuple "x": 1 fields, not the 13 of version 2`, two[0], `record 1: flow tuple "1772366435,a,10.0.0.4,59831,443,T,I,A,B,,,,": address "a": no IP address`}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for how, in := range map[string]io.Reader{"at once": strings.NewReader(tt.file), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.file))} {
				got, err := readAll(in)
				if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
					t.Errorf("%s: got\n%s\nwant\n%s", how, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%s: error %v, want %q", how, err, tt.err)
				}
			}
		})
	}
}

func TestFieldsThatAreRefused(t *testing.T) {
	for tuple, kind := range map[string]string{
		"x": "fields", "a,203.0.113.9,10.0.0.4,59831,443,T,I,A,B,,,,": "time", "1,203.0.113.9,::1,59831,443,T,I,A,B,,,,": "address",
		"1,203.0.113.9,10.0.0.4,65536,443,T,I,A,B,,,,": "port", "1,203.0.113.9,10.0.0.4,1,443,X,I,A,B,,,,": "protocol",
		"1,203.0.113.9,10.0.0.4,1,443,T,X,A,B,,,,": "direction", "1,203.0.113.9,10.0.0.4,1,443,T,I,X,B,,,,": "decision",
		"1,203.0.113.9,10.0.0.4,1,443,T,I,A,X,,,,": "state", "1,203.0.113.9,10.0.0.4,1,443,T,I,A,C,a,,,": "counter",
		"1,203.0.113.9,10.0.0.4,1,443,T,I,A,C,18446744073709551616,,,": "counter", "1,203.0.113.9,10.0.0.4,1,443,T,I,A,C,,,,,": "fields",
	} {
		var bad *Malformed
		if err := (&Row{Version: 2}).parse(tuple); !errors.As(err, &bad) || bad.Kind != kind {
			t.Errorf("%q is refused for %v, want %s", tuple, err, kind)
		}
	}
}

// A record that never ends must not fill the memory.
func TestARecordIsBounded(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`{"records":[{"category":"`), repeat('a'))
	if _, err := readAll(endless); err == nil || !strings.Contains(err.Error(), "a record takes more than 64 MB") {
		t.Errorf("error %v", err)
	}
}

type repeat byte

func (b repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{`{"records":[` + fmt.Sprintf(nsgRecord, 2, begins) + `]}`, fmt.Sprintf(vnetRecord, vnetRow), `{"records":[]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		lines, err := readAll(strings.NewReader(string(file)))
		again, twice := readAll(iotest.HalfReader(strings.NewReader(string(file))))
		if strings.Join(lines, "\n") != strings.Join(again, "\n") || (err == nil) != (twice == nil) {
			t.Errorf("read at once %q %v, in parts %q %v", lines, err, again, twice)
		}
	})
}
