package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/spf13/cobra"
)

// runMany streams requests through and prints results as they come.
func (f *verifyFlags) runMany(c *cobra.Command, g *global) error {
	requests := c.InOrStdin()
	if f.requests != "-" {
		file, err := os.Open(f.requests)
		if err != nil {
			return usageError{fmt.Errorf("verify: --requests: %w", err)}
		}
		defer file.Close()
		requests = file
	}
	verify, err := f.verifier(g)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	reader, writer := io.Pipe()
	// Reading requests has no deadline: an interrupt must not wait for the next request.
	context.AfterFunc(ctx, func() { writer.CloseWithError(fmt.Errorf("verify: %w", context.Cause(ctx))) })
	out := bufio.NewWriter(c.OutOrStdout())
	var results requestResults = &resultLines{to: g.lines(out)}
	if g.output == outputTable {
		asked := &questions{requests: requests}
		requests = asked
		results = &resultTable{asked: asked, grid: newGrid(out, "NIC", "DIRECTION", "PROTOCOL", "LOCAL", "REMOTE", "ACCESS", "NSG", "RULE", "REASON")}
	}
	go func() {
		writer.CloseWithError(verify(ctx, requests, writer))
	}()
	return f.printMany(c, out, reader, results)
}

// requestResults print the results of requests, in their order.
type requestResults interface {
	result(line []byte, v *ask.Verification) error
	// flush is called when no more results are at hand: whoever sends requests one by one waits for the last one.
	flush(end bool) error
}

// printMany prints results until they end. The answer is negative when one of them is an error or not
// as expected.
func (f *verifyFlags) printMany(c *cobra.Command, out *bufio.Writer, results io.Reader, to requestResults) error {
	answers, failed, refused, first := 0, 0, false, 0
	for lines := bufio.NewReader(results); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 {
			var v ask.Verification
			if err := json.Unmarshal(line, &v); err != nil {
				return fmt.Errorf("verify: answer: %w", err)
			}
			if v.VerificationIPFlowResult == nil {
				v.VerificationIPFlowResult = &azure.VerificationIPFlowResult{}
			}
			answers++
			refused = refused || v.Error != ""
			if v.Error == "" && f.expect.disappoints(v.Access) {
				if failed++; failed == 1 {
					first = answers
				}
			}
			if err := to.result(line, &v); err != nil {
				return err
			}
		}
		end := errors.Is(err, io.EOF)
		if end || lines.Buffered() == 0 {
			if err := errors.Join(to.flush(end), out.Flush()); err != nil {
				return err
			}
		}
		if end {
			break
		}
	}
	switch {
	case failed > 0:
		return f.expect.failed(c, fmt.Sprintf("%d of %s differ, answer %d first", failed, plural(answers, "answer"), first))
	case refused:
		return errNegative
	}
	return nil
}

// resultLines prints results as they came.
type resultLines struct{ to *answers }

func (r *resultLines) result(line []byte, _ *ask.Verification) error {
	return r.to.Encode(json.RawMessage(line))
}

func (r *resultLines) flush(bool) error { return nil }

// resultTable prints each result beside its request.
type resultTable struct {
	asked *questions
	grid  *grid
}

func (r *resultTable) result(_ []byte, v *ask.Verification) error {
	q := r.asked.next()
	nic := q.TargetNicResourceID
	if nic == "" {
		nic = q.TargetResourceID
	}
	r.grid.row(lastName(nic), q.Direction, q.Protocol, askedEnd(q.LocalIPAddress, q.LocalPort), askedEnd(q.RemoteIPAddress, q.RemotePort),
		v.Access, v.NetworkSecurityGroup, v.RuleName, v.Reason+v.Error)
	return nil
}

func (r *resultTable) flush(end bool) error {
	if !end {
		return nil // columns are as wide as their widest cell
	}
	return r.grid.flush()
}

// askedEnd is an end as the request has it: the port may be *.
func askedEnd(address, port string) string {
	if address == "" || port == "" {
		return address
	}
	return net.JoinHostPort(address, port)
}

// questions is a stream of requests that remembers those whose results have not come.
type questions struct {
	requests io.Reader

	mu    sync.Mutex
	line  []byte // what is read of the next one
	asked []azure.VerificationIPFlowParameters
}

// Read implements io.Reader.
func (q *questions) Read(b []byte) (int, error) {
	n, err := q.requests.Read(b)
	q.mu.Lock()
	defer q.mu.Unlock()
	rest := b[:n]
	for {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		q.line = append(q.line, line[:min(len(line), ask.MaxRequestLen-len(q.line))]...)
		if !ended {
			break
		}
		q.end()
		rest = after
	}
	if err != nil {
		q.end()
	}
	return n, err
}

// end ends a line as ask.VerifyStream does: an empty one has no result.
func (q *questions) end() {
	line := bytes.TrimSpace(q.line)
	if len(line) > 0 || len(q.line) == ask.MaxRequestLen {
		var p azure.VerificationIPFlowParameters
		if json.Unmarshal(line, &p) != nil {
			p = azure.VerificationIPFlowParameters{} // its result is an error
		}
		q.asked = append(q.asked, p)
	}
	q.line = q.line[:0]
}

// next is the request of the next result.
func (q *questions) next() (p azure.VerificationIPFlowParameters) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.asked) > 0 {
		p, q.asked = q.asked[0], q.asked[1:]
	}
	return p
}
