package watch

import (
	"errors"
	"fmt"
)

// Lack is what some events lack, so that a filter must not ask for it.
type Lack uint8

// The lacks. Summaries of packets have no source port, and what a packet was to its flow; rows of flow logs name no attachment.
const (
	SourcePorts Lack = 1 << iota
	Standings
	Attachments
)

// Compile looks the filter's names up. An unknown one is an *Error.
func (f *Filter) Compile(names *Names) (*Program, error) {
	p, err := f.bind(names, true)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// CompileLoosely is Compile for names of which some are not known yet: such a name matches nothing.
func (f *Filter) CompileLoosely(names *Names) *Program {
	p, _ := f.bind(names, false)
	return p
}

// Lacks refuses a filter that asks for what events lack.
func (f *Filter) Lacks(what Lack) error {
	if f.takesAll() {
		return nil
	}
	return f.root.lacks(what)
}

func (n *node) lacks(what Lack) error {
	if n.op != opTest {
		for _, part := range []*node{n.left, n.right} {
			if part == nil {
				continue
			}
			if err := part.lacks(what); err != nil {
				return err
			}
		}
		return nil
	}
	t := &n.test
	switch {
	case what&SourcePorts != 0 && (t.kind == kindPort || t.kind == kindPortRange) && (t.side == source || t.side == both):
		return errors.New("filter: src port: source ports are not remembered: allowed are port and dst port")
	case what&Standings != 0 && t.kind == kindFlow:
		return fmt.Errorf("filter: flow %s: it is not remembered what a packet was to its flow", Standing(t.first))
	case what&Attachments != 0 && t.kind == kindAttachment:
		return fmt.Errorf("filter: nic %q: no network interface is named here: allowed are host and net", t.name)
	}
	return nil
}
