package flowlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// An hour's file is a list of records, one a line, as in the blocks of Azure's files:
//
//	{"records":[
//	{"time":...}
//	,{"time":...}
//	]}
//
// One write puts a record and a new last line in the place of the last line, so the file is
// whole before and after it. If the process is killed or the disk fills in the middle, the last
// line is missing, and mend cuts the file behind its last whole record. No record contains a line
// break, so the last line differs from a record's end.
const (
	opening = "{\"records\":[\n"
	closing = "]}\n"
)

// appendRecord adds a record to a file. It returns by how much the file grew. After an error the file is as it
// was before.
func appendRecord(f *os.File, record []byte) (grown int64, err error) {
	before, err := sizeOf(f)
	if err != nil {
		return 0, err
	}
	size, err := mend(f, before)
	if err != nil {
		return size - before, err
	}
	text := make([]byte, 0, len(opening)+len(record)+len(",\n"+closing))
	at := size - int64(len(closing))
	switch {
	case size == 0:
		at, text = 0, append(text, opening...)
	case at > int64(len(opening)):
		text = append(text, ',')
	}
	text = append(append(append(text, record...), '\n'), closing...)
	if _, err = f.WriteAt(text, at); err == nil {
		return at + int64(len(text)) - before, nil
	}
	if size == 0 {
		return -before, errors.Join(err, f.Truncate(0))
	}
	// The old last line needs no new room on the disk.
	_, restored := f.WriteAt([]byte(closing), at)
	return size - before, errors.Join(err, restored, f.Truncate(size))
}

var errForeign = errors.New("no flow log of nsgd")

func sizeOf(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// mend makes a torn file whole and returns its length.
func mend(f *os.File, size int64) (int64, error) {
	whole, err := isWhole(f, size)
	if whole || err != nil {
		return size, err
	}
	good, err := wholeRecords(f)
	if err != nil {
		return size, err
	}
	if good == 0 {
		return 0, f.Truncate(0)
	}
	if _, err := f.WriteAt([]byte(closing), good); err != nil {
		return size, err
	}
	good += int64(len(closing))
	return good, f.Truncate(good)
}

// isWhole looks only at the end: if the last line is there, all records are whole.
func isWhole(f *os.File, size int64) (bool, error) {
	if size == 0 {
		return true, nil
	}
	const last = "\n" + closing
	if size < int64(len(last)) {
		return false, nil
	}
	tail := make([]byte, len(last))
	if _, err := f.ReadAt(tail, size-int64(len(last))); err != nil {
		return false, err
	}
	return string(tail) == last, nil
}

// recordTime is how long the beginning of a record is that no other record in its file has: the time.
const recordTime = len(`{"time":"2006-01-02T15:04:05.0000000Z"`)

// endsWith reports that a whole file's last record has a length and a beginning.
func endsWith(f *os.File, beginning []byte, length int) (bool, error) {
	size, err := sizeOf(f)
	if err != nil {
		return false, err
	}
	at := size - int64(len("\n"+closing)) - int64(length)
	if at < int64(len(opening)) {
		return false, nil
	}
	text := make([]byte, len(beginning))
	if _, err := f.ReadAt(text, at); err != nil {
		return false, err
	}
	return string(text) == string(beginning), nil
}

// wholeRecords is the length of a file's opening and its whole records.
func wholeRecords(f *os.File) (good int64, err error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	lines := bufio.NewReaderSize(f, 64<<10)
	for first := true; ; first = false {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return good, nil
		}
		if err != nil {
			return good, err
		}
		record := bytes.TrimPrefix(line, []byte(","))
		switch {
		case first && string(line) != opening:
			return 0, fmt.Errorf("%s: %w: it begins with %.40q", f.Name(), errForeign, line)
		case !first && !json.Valid(record): // the last line too
			return good, nil
		}
		good += int64(len(line))
	}
}
