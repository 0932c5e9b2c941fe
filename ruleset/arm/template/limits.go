package template

import (
	"context"
	"errors"
	"time"
)

// DefaultTimeout is how long the templates of one reading may take together where nothing else is set.
const DefaultTimeout = 10 * time.Second

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
	// bytesOfNode is more than the bytes of a list or object that one value of a document makes.
	bytesOfNode = 64
	// bytesOfStep is how much of a text costs a step, elementsOfStep of a list, fieldsOfStep of an object.
	bytesOfStep, elementsOfStep, fieldsOfStep = 16, 64, 4
	// stepsOfFile is what reading a linked file costs.
	stepsOfFile = 300
	// deepestLink is how many names the path of an absolute link has at most below the template's folder.
	deepestLink = 8
	// lookEvery is how many steps lie between two looks at the context.
	lookEvery = 1 << 12
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
	ctx          context.Context
	unlooked     int // steps since the last look at ctx
	cycles       int // values that were found to refer to themselves
	// where is the expression at which the evaluation ended early.
	where *Problem
	// spent is the reason why the evaluation ended early; nil if it did not.
	spent error
}

func newBudget(ctx context.Context) *budget {
	if ctx == nil {
		ctx = context.Background()
	}
	return &budget{steps: maxSteps, bytes: maxBytes, ctx: ctx, unlooked: lookEvery}
}

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

// step charges n steps. Once the evaluation has ended early, it fails with the reason.
func (b *budget) step(n int) error {
	if b.spent != nil {
		return b.spent
	}
	if b.steps -= n; b.steps < 0 {
		b.spent = errSteps
		return errSteps
	}
	if b.unlooked += n; b.unlooked >= lookEvery {
		b.unlooked = 0
		if b.ctx.Err() != nil {
			b.spent = context.Cause(b.ctx)
			return b.spent
		}
	}
	return nil
}

// size is what a function that walks over a value costs at least, in steps. It does not look into lists and objects.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v) / bytesOfStep
	case []any:
		return len(v) / elementsOfStep
	case map[string]any:
		return len(v) / fieldsOfStep
	}
	return 0
}

// alloc charges n bytes before they are allocated.
func (b *budget) alloc(n int) error {
	if b.spent != nil {
		return b.spent
	}
	if n < 0 || n > b.bytes {
		b.spent = errBytes
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
