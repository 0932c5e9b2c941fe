package classifier

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
)

// bitmap is a set of rules that is being built: words holds a bit for each
// rule, summary a bit for each word that is not zero, hash follows the content.
type bitmap struct {
	words, summary []uint64
	hash           uint64
	seed           maphash.Seed
}

// members is a set of rules as the words that hold them, for flipping at once.
type members []wordMask

type wordMask struct {
	word int
	mask uint64
}

// add puts a rule into m. Rules come in ascending order.
func (m *members) add(rule int) {
	if n := len(*m); n > 0 && (*m)[n-1].word == rule/64 {
		(*m)[n-1].mask |= 1 << (rule % 64)
		return
	}
	*m = append(*m, wordMask{word: rule / 64, mask: 1 << (rule % 64)})
}

// flip adds the rules of m when they are absent and removes them when they are
// there. The hash is the XOR of one value for each word, so a change costs the
// words that it changes and not the length of the bitmap.
func (b *bitmap) flip(m members) {
	for _, c := range m {
		old := b.words[c.word]
		b.words[c.word] ^= c.mask
		b.hash ^= b.wordHash(c.word, old) ^ b.wordHash(c.word, old^c.mask)
		bit := uint64(1) << (c.word % 64)
		if old^c.mask == 0 {
			b.summary[c.word/64] &^= bit
		} else {
			b.summary[c.word/64] |= bit
		}
	}
}

// wordHash is 0 for a zero word, so that the empty bitmap hashes to 0.
func (b *bitmap) wordHash(word int, value uint64) uint64 {
	if value == 0 {
		return 0
	}
	return maphash.Comparable(b.seed, wordMask{word: word, mask: value})
}

// pool stores each different bitmap once. A stored bitmap is called by the
// offset of its first word: the summary words, then the words that are not
// zero; with no more than flatRules rules there is no summary, and all words.
type pool struct {
	words, summaries int // of a stored bitmap; summaries is 0 when it has none
	stored           []uint64
	byHash           map[uint64]uint32 // hash, or the next free number after it, to offset
	seed             maphash.Seed
	key              []uint64 // the bitmap being looked for, as it is stored
}

func newPool(rules int) *pool {
	p := &pool{words: wordsFor(rules), byHash: make(map[uint64]uint32), seed: maphash.MakeSeed()}
	if rules > flatRules {
		p.summaries = wordsFor(p.words)
	}
	return p
}

// wordsFor is the number of words that hold n bits, at least 1.
func wordsFor(n int) int { return max(1, (n+63)/64) }

// empty makes a bitmap of no rules.
func (p *pool) empty() *bitmap {
	return &bitmap{words: make([]uint64, p.words), summary: make([]uint64, wordsFor(p.words)), seed: p.seed}
}

// intern returns the offset of the stored bitmap that equals b, storing b if it
// is the first of its content. Only equal content counts; a hash that two
// contents share costs one more step.
func (p *pool) intern(b *bitmap) uint32 {
	p.encode(b)
	for h := b.hash; ; h++ {
		at, ok := p.byHash[h]
		if !ok {
			at = p.store()
			p.byHash[h] = at
			return at
		}
		// What is stored at a bitmap's offset begins with its summary, which
		// says how long it is: an equal beginning is an equal bitmap.
		if end := int(at) + len(p.key); end <= len(p.stored) && slices.Equal(p.stored[at:end], p.key) {
			return at
		}
	}
}

// encode writes b to p.key in the form that is stored.
func (p *pool) encode(b *bitmap) {
	if p.summaries == 0 {
		p.key = append(p.key[:0], b.words...)
		return
	}
	p.key = append(p.key[:0], b.summary...)
	for j, s := range b.summary {
		for ; s != 0; s &= s - 1 {
			p.key = append(p.key, b.words[j*64+bits.TrailingZeros64(s)])
		}
	}
}

func (p *pool) store() uint32 {
	at := uint64(len(p.stored))
	if at > math.MaxUint32 {
		// 32 GiB of bitmaps: offsets are narrower than memory so that intervals are small.
		panic("classifier: rules need more than 2^32 words of bitmaps")
	}
	p.stored = append(p.stored, p.key...)
	return uint32(at)
}
