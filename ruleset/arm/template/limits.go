package template

import "errors"

// Azure's limits, where it states one; the others are ours.
const (
	// maxExpression is Azure's limit of an expression's length.
	maxExpression = 24_576
	// maxCopies is Azure's limit of a copy loop.
	maxCopies = 800
	// maxRange is Azure's limit of range().
	maxRange = 10_000
	// maxNesting is how deep an expression may nest.
	maxNesting = 100
	// maxDepth is how deep parameters, variables, references and lists may go through
	// one another.
	maxDepth = 250
	// maxDeployments is how deep deployments may nest.
	maxDeployments = 8
	// maxSteps and maxBytes bound the time and the memory of one evaluation, beside
	// what the document itself takes.
	maxSteps = 4_000_000
	maxBytes = 64 << 20
	// stepsOfNode is more than a value of a document takes that is no expression.
	stepsOfNode = 8
)

var (
	errSteps = errors.New("the template needs more than 4000000 steps to evaluate, the cap of one evaluation")
	errBytes = errors.New("the template's values take more than 64 MiB, the cap of one evaluation")
	errDepth = errors.New("parameters, variables, references and values nest deeper than 250, the cap")
)

// budget is what is left of an evaluation's steps and bytes.
type budget struct {
	steps, bytes int
	depth        int
	// spent is why the evaluation as a whole is no use; nil while it is.
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

// take charges n bytes, before they are allocated.
func (b *budget) take(n int) error {
	if n < 0 || n > b.bytes {
		b.bytes, b.spent = 0, errBytes
		return errBytes
	}
	b.bytes -= n
	return nil
}

// enter goes a level deeper; leave comes back.
func (b *budget) enter() error {
	b.depth++
	if b.depth > maxDepth {
		return errDepth
	}
	return nil
}

func (b *budget) leave() { b.depth-- }
