package ask

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// MaxRequestLen bounds a line of requests, in bytes; a request needs some hundred.
const MaxRequestLen = 64 << 10

// Verification is one line of the answers of VerifyStream: a result, or an error.
type Verification struct {
	*azure.VerificationIPFlowResult
	// Error is why the request has no answer; the result is nil then.
	Error string `json:"error,omitempty"`
}

// VerifyStream reads verification requests (azure.VerificationIPFlowParameters), one JSON
// object a line, and writes one Verification a line in the same order. One snapshot decides all.
// An invalid line is answered with an error and doesn't stop the others; empty lines are
// skipped. With path it judges the other end's chain too. Answers are written out whenever the
// reader has no more requests at hand, so a peer may wait for each answer. Results with a Flush
// method are flushed then.
func VerifyStream(s *topology.Snapshot, path bool, requests io.Reader, results io.Writer) error {
	in := bufio.NewReaderSize(requests, MaxRequestLen)
	out := bufio.NewWriterSize(results, 64<<10)
	encoder := json.NewEncoder(out)
	for number := 1; ; number++ {
		if in.Buffered() == 0 {
			if err := flush(out, results); err != nil {
				return err
			}
		}
		line, err := readLine(in)
		if err != nil && !errors.Is(err, errLongLine) && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("verify: requests: line %d: %w", number, err), flush(out, results))
		}
		if len(line) > 0 || errors.Is(err, errLongLine) {
			if err := encoder.Encode(verifyLine(s, path, number, line, err)); err != nil {
				return fmt.Errorf("verify: results: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return flush(out, results)
		}
	}
}

func verifyLine(s *topology.Snapshot, path bool, number int, line []byte, err error) Verification {
	if !errors.Is(err, errLongLine) {
		var flow *azure.Flow
		if flow, err = azure.ParseFlow(line); err == nil {
			var result *azure.VerificationIPFlowResult
			if result, err = Verify(s, flow, path); err == nil {
				return Verification{VerificationIPFlowResult: result}
			}
		}
	}
	return Verification{Error: fmt.Sprintf("line %d: %v", number, err)}
}

var errLongLine = fmt.Errorf("longer than %d bytes", MaxRequestLen)

// readLine returns the next line without its end, valid until the next call. It skips a line
// that is too long to the line's end.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return bytes.TrimSpace(line), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, errLongLine // the next call meets the end of the input
}

func flush(out *bufio.Writer, results io.Writer) error {
	if out.Buffered() == 0 {
		return nil
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("verify: results: %w", err)
	}
	switch f := results.(type) {
	case interface{ Flush() error }:
		return f.Flush()
	case interface{ Flush() }:
		f.Flush()
	}
	return nil
}
