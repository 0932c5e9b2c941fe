package template

import "errors"

// The limits are Azure's, or ours where Azure states none.
const (
	// maxExpression is Azure's limit of an expression's length.
	maxExpression = 24_576
	// maxCopies is Azure's limit of a copy loop.
	maxCopies = 800
	// maxRange is Azure's limit of range().
	maxRange = 10_000
	// maxNesting is how deep an expression may nest.
	maxNesting = 100
	// maxDepth is how deep parameters, variables, references and lists may depend on each
	// other.
	maxDepth = 250
	// maxDeployments is how deep deployments may nest.
	maxDeployments = 8
	// maxSteps and maxBytes bound the time and memory of one evaluation, besides those of
	// the document itself.
	maxSteps = 4_000_000
	maxBytes = 64 << 20
	// stepsOfNode is more than the steps of one value of a document without expressions.
	stepsOfNode = 8
)

var (
	errSteps = errors.New("the template needs more than 4000000 steps to evaluate, the cap of one evaluation")
	errBytes = errors.New("the template's values take more than 64 MiB, the cap of one evaluation")
	errDepth = errors.New("parameters, variables, references and values nest deeper than 250, the cap")
)

// budget is the rest of an evaluation's steps and bytes.
type budget struct {
	steps, bytes int
	depth        int
	// spent is the reason why the evaluation ended early; nil if it did not.
	spent error
}

func newBudget() *budget { return &budget{steps: maxSteps, bytes: maxBytes} }

// nodes counts the values of a document.
func nodes(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			n += nodes(e)
		}
	case map[string]any:
		for _, e := range v {
			n += nodes(e)
		}
	}
	return n
}

// step charges n steps.
func (b *budget) step(n int) error {
	if b.steps -= n; b.steps < 0 {
		b.steps, b.spent = -1, errSteps
		return errSteps
	}
	return nil
}

// alloc charges n bytes before they are allocated.
func (b *budget) alloc(n int) error {
	if n < 0 || n > b.bytes {
		b.bytes, b.spent = 0, errBytes
		return errBytes
	}
	b.bytes -= n
	return nil
}

// enter goes one level deeper. leave goes back.
func (b *budget) enter() error {
	b.depth++
	if b.depth > maxDepth {
		return errDepth
	}
	return nil
}

func (b *budget) leave() { b.depth-- }
