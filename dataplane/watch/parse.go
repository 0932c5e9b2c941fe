package watch

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
)

const (
	// MaxText bounds an expression, in bytes, and so its cost for each packet.
	MaxText = 4096
	// maxDepth bounds how deep parentheses and nots are nested.
	maxDepth = 64
)

// Parse reads an expression; see Filter. An empty one takes every packet. The error is an
// *Error.
func Parse(text string) (*Filter, error) {
	if len(text) > MaxText {
		return nil, errorAt(MaxText+1, "the filter has %d bytes: allowed are %d", len(text), MaxText)
	}
	tokens, err := scan(text)
	if err != nil {
		return nil, err
	}
	f := &Filter{text: text}
	if len(tokens) == 1 { // the end
		return f, nil
	}
	p := parser{tokens: tokens}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokenEnd {
		return nil, errorAt(t.column, "%s: allowed here are and, or and the end", t)
	}
	f.root = root
	return f, nil
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted // a name, whatever it says
	tokenOpen
	tokenClose
	tokenNot
	tokenAnd
	tokenOr
)

type token struct {
	kind   tokenKind
	text   string
	column int
}

func (t token) String() string {
	if t.kind == tokenEnd {
		return "the end"
	}
	return strconv.Quote(t.text)
}

const blanks = " \t\r\n"

// scan splits the text into tokens; the last one is the end.
func scan(text string) ([]token, error) {
	var tokens []token
	for i := 0; i < len(text); {
		rest, t := text[i:], token{column: i + 1}
		switch {
		case strings.ContainsRune(blanks, rune(rest[0])):
			i++
			continue
		case rest[0] == '(':
			t.kind, t.text = tokenOpen, "("
		case rest[0] == ')':
			t.kind, t.text = tokenClose, ")"
		case rest[0] == '!':
			t.kind, t.text = tokenNot, "!"
		case strings.HasPrefix(rest, "&&"):
			t.kind, t.text = tokenAnd, "&&"
		case strings.HasPrefix(rest, "||"):
			t.kind, t.text = tokenOr, "||"
		case rest[0] == '"' || rest[0] == '\'':
			end := strings.IndexByte(rest[1:], rest[0])
			if end < 1 {
				return nil, errorAt(t.column, "%c begins a name that is empty or has no end: allowed is a name between two of them", rest[0])
			}
			t.kind, t.text = tokenQuoted, rest[1:1+end]
			i += 2
		default:
			end := strings.IndexAny(rest, blanks+"()!&|\"'")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, errorAt(t.column, "%q: allowed are && and ||", rest[:1])
			}
			t.kind, t.text = wordKind(rest[:end]), rest[:end]
		}
		i += len(t.text)
		tokens = append(tokens, t)
	}
	return append(tokens, token{column: len(text) + 1}), nil
}

func wordKind(word string) tokenKind {
	switch strings.ToLower(word) {
	case "not":
		return tokenNot
	case "and":
		return tokenAnd
	case "or":
		return tokenOr
	}
	return tokenWord
}

type parser struct {
	tokens []token
	next   int
	depth  int
	last   *qualifiers // of the last value, for a value without its own
}

// qualifiers are the words before a value.
type qualifiers struct {
	proto *node // nil: any
	side  side
	kind  kind
	sides bool // a side was named
	named bool // a kind was
}

func (p *parser) peek() token { return p.tokens[p.next] }

func (p *parser) take() token {
	t := p.peek()
	if t.kind != tokenEnd {
		p.next++
	}
	return t
}

func (p *parser) or() (*node, error) { return p.chain(opOr, tokenOr, p.and) }

func (p *parser) and() (*node, error) { return p.chain(opAnd, tokenAnd, p.not) }

func (p *parser) chain(op operator, between tokenKind, part func() (*node, error)) (*node, error) {
	left, err := part()
	for err == nil && p.peek().kind == between {
		p.take()
		var right *node
		if right, err = part(); err == nil {
			left = &node{op: op, left: left, right: right}
		}
	}
	return left, err
}

func (p *parser) not() (*node, error) {
	t := p.peek()
	if p.depth++; p.depth > maxDepth {
		return nil, errorAt(t.column, "%s: not and parentheses stand %d deep: allowed are %d", t, p.depth, maxDepth)
	}
	defer func() { p.depth-- }()
	switch t.kind {
	case tokenNot:
		p.take()
		n, err := p.not()
		return &node{op: opNot, left: n}, err
	case tokenOpen:
		p.take()
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if end := p.take(); end.kind != tokenClose {
			return nil, errorAt(end.column, "%s: allowed here are and, or and the ) for the ( in column %d", end, t.column)
		}
		return n, nil
	}
	return p.primitive()
}

var families = map[string]uint16{"ip": 4, "ip6": 6}

// protocols stand for themselves, and may stand before a side, a kind or a value.
var protocols = map[string]uint8{
	"tcp": packet.ProtoTCP, "udp": packet.ProtoUDP, "icmp": packet.ProtoICMP, "icmp6": packet.ProtoICMPv6,
	"icmpv6": packet.ProtoICMPv6, "esp": packet.ProtoESP, "ah": packet.ProtoAH, "gre": packet.ProtoGRE,
}

// words are all words that can begin a primitive, for errors.
var words = strings.Join(slices.Sorted(maps.Keys(families)), ", ") + ", " + strings.Join(slices.Sorted(maps.Keys(protocols)), ", ") +
	", src, dst, " + strings.Join(slices.Sorted(maps.Keys(kindNames)), ", ")

func (p *parser) primitive() (*node, error) {
	q := &qualifiers{}
	p.protocol(q)
	p.side(q)
	p.kind(q)
	t := p.peek()
	switch {
	case q.named:
		if q.sides && !q.kind.sided() {
			return nil, errorAt(t.column, "src and dst say nothing about %s: allowed is %s without them", t, p.tokens[p.next-1].text)
		}
	case q.proto != nil && !q.sides && !isAddress(t.text):
		return q.proto, nil // it stands for itself
	case isAddress(t.text):
		q.kind = kindHost
		if strings.ContainsRune(t.text, '/') {
			q.kind = kindNet
		}
	case q.sides:
		return nil, errorAt(t.column, "%s: allowed behind src and dst are host, net, port, portrange, nic, attachment, an address and a prefix", t)
	case p.last != nil && (t.kind == tokenWord || t.kind == tokenQuoted) && p.last.continues(t):
		q = p.last
	default:
		return nil, errorAt(t.column, "%s: allowed here are not, (, an address, a prefix and %s", t, words)
	}
	if t = p.take(); t.kind != tokenWord && t.kind != tokenQuoted {
		return nil, errorAt(t.column, "%s: allowed behind %s is %s", t, p.before(), valueOf[q.kind])
	}
	n, err := q.value(t)
	if err != nil {
		return nil, err
	}
	p.last = q
	if q.proto != nil {
		n = &node{op: opAnd, left: q.proto, right: n}
	}
	return n, nil
}

// before is the word in front of the token that was taken last.
func (p *parser) before() string {
	i := p.next - 2
	if p.peek().kind == tokenEnd {
		i = len(p.tokens) - 2
	}
	return p.tokens[max(i, 0)].text
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	if err != nil {
		_, err = netip.ParsePrefix(text)
	}
	return err == nil
}

func (p *parser) word() string {
	if t := p.peek(); t.kind == tokenWord {
		return strings.ToLower(t.text)
	}
	return ""
}

func (p *parser) protocol(q *qualifiers) {
	word := p.word()
	if family, ok := families[word]; ok {
		q.proto = &node{test: test{kind: kindFamily, first: family}}
	} else if number, ok := protocols[word]; ok {
		q.proto = &node{test: test{kind: kindProto, first: uint16(number), icmp: word == "icmp"}}
	} else {
		return
	}
	p.take()
}

// side reads src, dst, src or dst, and src and dst.
func (p *parser) side(q *qualifiers) {
	sides := map[string]side{"src": source, "dst": destination}
	first, ok := sides[p.word()]
	if !ok {
		return
	}
	p.take()
	q.sides, q.side = true, first
	join := p.peek().kind
	if join != tokenOr && join != tokenAnd {
		return
	}
	p.next++
	if second, ok := sides[p.word()]; !ok || second == first {
		p.next--
		return
	}
	p.take()
	q.side = either
	if join == tokenAnd {
		q.side = both
	}
}

func (p *parser) kind(q *qualifiers) {
	if k, ok := kindNames[p.word()]; ok {
		p.take()
		q.kind, q.named = k, true
	}
}

// continues reports whether a word can be another value of the same kind. A name could be any
// word, so an unquoted one is refused: it may be a mistyped keyword.
func (q *qualifiers) continues(t token) bool {
	switch q.kind {
	case kindPort, kindPortRange, kindProto:
		return t.text[0] >= '0' && t.text[0] <= '9'
	case kindAttachment, kindNSG, kindRule:
		return t.kind == tokenQuoted
	}
	_, err := q.value(t)
	return err == nil
}

// valueOf says what may follow each kind.
var valueOf = map[kind]string{
	kindHost: "an IP address", kindNet: "a prefix such as 10.0.0.0/24", kindPort: "a port from 0 to 65535",
	kindPortRange: "two ports such as 8000-8080", kindProto: "tcp, udp, icmp, icmp6, esp, ah, gre or a number from 0 to 255",
	kindAttachment: "the name of a network interface, of a subnet, internet or platform", kindNSG: "the name of a network security group",
	kindRule: "the name of a rule", kindVerdict: "allow or deny", kindReason: "the name of a drop reason", kindFlow: "new, live, related or none",
}

// value makes the test of a value.
func (q *qualifiers) value(t token) (*node, error) {
	made := test{kind: q.kind, side: q.side, column: t.column}
	refused := errorAt(t.column, "%s: allowed is %s", t, valueOf[q.kind])
	var ok bool
	switch q.kind {
	case kindHost:
		a, err := netip.ParseAddr(t.text)
		if err != nil || a.Zone() != "" {
			return nil, refused
		}
		a = a.Unmap()
		made.prefix = netip.PrefixFrom(a, a.BitLen())
	case kindNet:
		prefix, err := netip.ParsePrefix(t.text)
		if err != nil || prefix.Addr().Is4In6() {
			return nil, refused
		}
		if prefix != prefix.Masked() {
			return nil, errorAt(t.column, "%s has bits set behind the prefix: allowed is %s", t, prefix.Masked())
		}
		made.prefix = prefix
	case kindPort:
		made.first, ok = port(t.text)
		if made.last = made.first; !ok {
			return nil, refused
		}
	case kindPortRange:
		first, last, _ := strings.Cut(t.text, "-")
		var lastOK bool
		made.first, ok = port(first)
		if made.last, lastOK = port(last); !ok || !lastOK || made.first > made.last {
			return nil, refused
		}
	case kindProto:
		number, known := protocols[strings.ToLower(t.text)]
		if n, err := strconv.ParseUint(t.text, 10, 8); err == nil {
			number, known = uint8(n), true
		}
		if made.first, made.icmp = uint16(number), strings.EqualFold(t.text, "icmp"); !known {
			return nil, refused
		}
	case kindVerdict, kindReason, kindFlow:
		list := wordsOf(q.kind)
		i := slices.Index(list, strings.ToLower(t.text))
		if i < 0 {
			return nil, errorAt(t.column, "%s: allowed are %s", t, strings.Join(list, ", "))
		}
		made.first = uint16(i)
	default:
		made.name = t.text
	}
	return &node{test: made}, nil
}

func port(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && text[0] != '+'
}

// wordsOf are the values of a kind, by number.
func wordsOf(k kind) (list []string) {
	switch k {
	case kindVerdict:
		return []string{"allow", "deny"}
	case kindFlow:
		for s := NoFlow; s <= Related; s++ {
			list = append(list, s.String())
		}
	case kindReason:
		for d := range packet.NumDrops {
			list = append(list, d.String())
		}
		list = append(list, OutOfWindow)
	}
	return list
}
