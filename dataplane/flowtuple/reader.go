// Package flowtuple reads Azure's flow logs: those of network security groups, versions 1 and 2, and those of virtual
// networks, version 4. A file is what Azure keeps as PT1H.json, or records one after the other, as nsgd prints
// them. It is read as a stream: one record is in memory at a time.
//
// Azure documents both forms:
// https://learn.microsoft.com/azure/network-watcher/nsg-flow-logs-overview and
// https://learn.microsoft.com/azure/network-watcher/vnet-flow-logs-overview.
package flowtuple

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrTruncated is the end of a file in the middle of a record.
var ErrTruncated = errors.New("the file ends in the middle of a record")

// maxRecord bounds what one record may take in memory. A record is a minute of one network interface.
const maxRecord = 64 << 20

// Reader reads the rows of one file. It is owned by one goroutine.
type Reader struct {
	in      *bounded
	decoder *json.Decoder
	// inList says that the decoder is inside of "records".
	inList bool

	record record
	count  int     // of records
	groups []group // that follow now
	now    group
}

// group is tuples with the fields that their rows share.
type group struct {
	shared Row
	tuples []string
}

// bounded fails when too much is read for one record.
type bounded struct {
	in   io.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("a record takes more than %d MB", maxRecord>>20)
	}
	n, err := b.in.Read(p)
	b.left -= n
	return n, err
}

// NewReader reads a file from its beginning.
func NewReader(in io.Reader) *Reader {
	b := &bounded{in, maxRecord}
	return &Reader{in: b, decoder: json.NewDecoder(b)}
}

// Records is how many records have been read.
func (r *Reader) Records() int { return r.count }

// record holds the fields of all versions.
type record struct {
	Category   string `json:"category"`
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

	Version     int    `json:"flowLogVersion"`
	MAC         string `json:"macAddress"`
	Target      string `json:"targetResourceID"`
	FlowRecords *struct {
		Flows []struct {
			ACL    string `json:"aclID"`
			Groups []struct {
				Rule       string   `json:"rule"`
				FlowTuples []string `json:"flowTuples"`
			} `json:"flowGroups"`
		} `json:"flows"`
	} `json:"flowRecords"`
}

// Next reads the next row. It returns io.EOF at the end, ErrTruncated where the file was cut off, and a *Malformed,
// after which reading goes on, for a row that is not understood.
func (r *Reader) Next(row *Row) error {
	for len(r.now.tuples) == 0 {
		if len(r.groups) > 0 {
			r.now, r.groups = r.groups[0], r.groups[1:]
		} else if err := r.nextRecord(); err != nil {
			return err
		}
	}
	text := r.now.tuples[0]
	r.now.tuples = r.now.tuples[1:]
	*row = r.now.shared
	var bad *Malformed
	if err := row.parse(text); errors.As(err, &bad) {
		bad.Record, bad.Tuple = r.count, text
		return bad
	}
	return nil
}

// groups are a record's rows by rule and network interface.
func (r *record) groups() (list []group) {
	if p := r.Properties; p != nil {
		for _, byRule := range p.Flows {
			for _, byMAC := range byRule.Flows {
				list = append(list, group{Row{Version: p.Version, Resource: r.ResourceID, MAC: Hardware(byMAC.MAC), Rule: byRule.Rule}, byMAC.FlowTuples})
			}
		}
	}
	if f := r.FlowRecords; f != nil {
		for _, byACL := range f.Flows {
			for _, byRule := range byACL.Groups {
				list = append(list, group{Row{Version: r.Version, Resource: r.Target, MAC: Hardware(r.MAC), ACL: byACL.ACL, Rule: byRule.Rule}, byRule.FlowTuples})
			}
		}
	}
	return list
}

// nextRecord reads the next record.
func (r *Reader) nextRecord() error {
	r.in.left = maxRecord
	r.record = record{}
	err := r.decode()
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF) && (r.inList || !errors.Is(err, errEnd)):
		return ErrTruncated
	case errors.Is(err, errEnd):
		return io.EOF
	case err != nil:
		return fmt.Errorf("record %d: %w", r.count+1, err)
	}
	r.count++
	version := r.record.Version
	if r.record.Properties != nil {
		version = r.record.Properties.Version
	}
	switch {
	case r.record.Properties == nil && r.record.FlowRecords == nil:
		return fmt.Errorf("record %d: neither properties nor flowRecords: it is of no flow log (category %q)", r.count, r.record.Category)
	case r.record.Properties != nil && version != 1 && version != 2, r.record.FlowRecords != nil && version != 4:
		return fmt.Errorf("record %d: version %d: read are 1 and 2 of network security groups and 4 of virtual networks", r.count, version)
	}
	r.groups = r.record.groups()
	return nil
}

// errEnd is the end of a file between two records.
var errEnd = fmt.Errorf("no further record: %w", io.EOF)

func (r *Reader) decode() error {
	for {
		if r.inList {
			if r.decoder.More() {
				return r.decoder.Decode(&r.record)
			}
			if _, err := r.decoder.Token(); err != nil { // the list's end
				return err
			}
			r.inList = false
			if err := r.skipFields(); err != nil {
				return err
			}
			continue
		}
		start, err := r.decoder.Token()
		switch {
		case errors.Is(err, io.EOF):
			return errEnd
		case err != nil:
			return err
		case start != json.Delim('{'):
			return errors.New("allowed is an object with records, or a record")
		}
		if single, err := r.open(); single || err != nil {
			return err
		}
	}
}

// open goes on behind the brace of an object: to its list of records, or to the end of an object that is a record
// itself.
func (r *Reader) open() (single bool, err error) {
	fields := map[string]json.RawMessage{}
	for r.decoder.More() {
		name, err := r.decoder.Token()
		if err != nil {
			return false, err
		}
		if name == "records" {
			bracket, err := r.decoder.Token()
			if err == nil && bracket != json.Delim('[') {
				err = errors.New("records: allowed is a list")
			}
			r.inList = err == nil
			return false, err
		}
		var value json.RawMessage
		if err := r.decoder.Decode(&value); err != nil {
			return false, err
		}
		fields[name.(string)] = value
	}
	if _, err := r.decoder.Token(); err != nil {
		return false, err
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(whole, &r.record)
}

// skipFields reads to the end of the object around the records.
func (r *Reader) skipFields() error {
	for r.decoder.More() {
		if _, err := r.decoder.Token(); err != nil {
			return err
		}
		var value json.RawMessage
		if err := r.decoder.Decode(&value); err != nil {
			return err
		}
	}
	_, err := r.decoder.Token()
	return err
}
