package template

import (
	"encoding/json"
	"fmt"
	"strings"
)

// node is a part of a parsed expression.
type node interface{}

type (
	literal struct{ value any }
	call    struct {
		name string // as written; "namespace.name" for a function that the template defines
		args []node
	}
	// member is base.name or base[index]. A safe one, with a question mark, is null when the
	// member is missing.
	member struct {
		base, index node
		safe        bool
	}
)

// isExpression reports whether text is a template expression. "[[" escapes a bracket.
func isExpression(text string) bool {
	return len(text) >= 2 && text[0] == '[' && text[len(text)-1] == ']' && text[1] != '['
}

// parser reads an expression without its brackets.
type parser struct {
	text  string
	at    int
	depth int
}

// parse reads a whole expression with its brackets.
func parse(text string) (node, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("the expression has %d characters; allowed are %d", len(text), maxExpression)
	}
	p := &parser{text: text[:len(text)-1], at: 1}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.blank(); p.at < len(p.text) {
		return nil, p.fail("expected the end of the expression")
	}
	return n, nil
}

func (p *parser) fail(format string, args ...any) error {
	found := "the end"
	if p.at < len(p.text) {
		rest := []rune(p.text[p.at:])
		found = fmt.Sprintf("%q", string(rest[:min(len(rest), 12)]))
	}
	return fmt.Errorf("character %d, at %s: %s", p.at+1, found, fmt.Sprintf(format, args...))
}

func (p *parser) blank() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// peek is the next character that is not a blank; 0 at the end.
func (p *parser) peek() byte {
	p.blank()
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

// accept reads a token if it is next.
func (p *parser) accept(token string) bool {
	p.blank()
	if strings.HasPrefix(p.text[p.at:], token) {
		p.at += len(token)
		return true
	}
	return false
}

func (p *parser) expression() (node, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxNesting {
		return nil, p.fail("the expression nests deeper than %d, the cap", maxNesting)
	}
	n, err := p.primary()
	for err == nil {
		switch {
		case p.accept(".?"):
			n, err = p.field(n, true)
		case p.accept("."):
			n, err = p.field(n, false)
		case p.accept("[?"):
			n, err = p.element(n, true)
		case p.accept("["):
			n, err = p.element(n, false)
		default:
			return n, nil
		}
	}
	return nil, err
}

func (p *parser) primary() (node, error) {
	switch c := p.peek(); {
	case c == '\'':
		return p.quoted()
	case c == '-' || c == '+' || isDigit(c):
		return p.number()
	case isLetter(c):
		return p.call()
	}
	return nil, p.fail("expected a function, a string in single quotes or a number")
}

// quoted reads a string. Two quotes inside it mean one.
func (p *parser) quoted() (node, error) {
	var b strings.Builder
	start := p.at
	for p.at++; p.at < len(p.text); p.at++ {
		if p.text[p.at] != '\'' {
			b.WriteByte(p.text[p.at])
			continue
		}
		if p.at+1 == len(p.text) || p.text[p.at+1] != '\'' {
			p.at++
			return literal{b.String()}, nil
		}
		b.WriteByte('\'')
		p.at++
	}
	p.at = start
	return nil, p.fail("the string has no closing quote")
}

func (p *parser) number() (node, error) {
	start := p.at
	if c := p.text[p.at]; c == '-' || c == '+' {
		p.at++
	}
	digits := p.at
	for p.at < len(p.text) && isDigit(p.text[p.at]) {
		p.at++
	}
	value, ok := integer(json.Number(strings.TrimPrefix(p.text[start:p.at], "+")))
	if digits == p.at || !ok {
		p.at = start
		return nil, p.fail("expected an integer of 64 bits")
	}
	return literal{number(value)}, nil
}

func (p *parser) call() (node, error) {
	name := p.name()
	if p.peek() == '.' {
		p.at++
		p.blank()
		name += "." + p.name()
	}
	if !p.accept("(") {
		return nil, p.fail("expected the arguments of the function %s in parentheses", name)
	}
	c := call{name: name}
	if p.accept(")") {
		return c, nil
	}
	for {
		arg, err := p.expression()
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, arg)
		switch {
		case p.accept(","):
		case p.accept(")"):
			return c, nil
		default:
			return nil, p.fail("expected a comma or a closing parenthesis in the arguments of %s", name)
		}
	}
}

func (p *parser) name() string {
	start := p.at
	for p.at < len(p.text) && (isLetter(p.text[p.at]) || isDigit(p.text[p.at])) {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *parser) field(base node, safe bool) (node, error) {
	p.blank()
	name := p.name()
	if name == "" {
		return nil, p.fail("expected the name of a property")
	}
	return member{base, literal{name}, safe}, nil
}

func (p *parser) element(base node, safe bool) (node, error) {
	index, err := p.expression()
	if err != nil {
		return nil, err
	}
	if !p.accept("]") {
		return nil, p.fail("expected a closing bracket")
	}
	return member{base, index, safe}, nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '$' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
