package classifier

import (
	"hash/maphash"
	"math/bits"
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
// zero. Of a table of 64 rules or fewer it is the one word alone.
type pool struct {
	rules  int
	stored []uint64
	byHash map[uint64]uint32 // hash, or the next free number after it, to offset
	seed   maphash.Seed
}

func newPool(rules int) *pool {
	return &pool{rules: rules, byHash: make(map[uint64]uint32), seed: maphash.MakeSeed()}
}

// wordsFor is the number of words of a bitmap over n bits, at least 1.
func wordsFor(n int) int { return max(1, (n+63)/64) }

// empty makes a bitmap of no rules.
func (p *pool) empty() *bitmap {
	words := wordsFor(p.rules)
	return &bitmap{words: make([]uint64, words), summary: make([]uint64, wordsFor(words)), seed: p.seed}
}

// intern returns the offset of the stored bitmap that equals b, storing b if it
// is the first of its content. Only equal content counts; a hash that two
// contents share costs one more step.
func (p *pool) intern(b *bitmap) uint32 {
	for h := b.hash; ; h++ {
		at, ok := p.byHash[h]
		if !ok {
			at = p.store(b)
			p.byHash[h] = at
			return at
		}
		if p.equal(at, b) {
			return at
		}
	}
}

func (p *pool) store(b *bitmap) uint32 {
	at := len(p.stored)
	if uint64(at) > 1<<32-1 {
		// 32 GiB of bitmaps: the machine has run out of memory before.
		panic("classifier: rules need more than 2^32 words of bitmaps")
	}
	if p.rules <= flatRules {
		p.stored = append(p.stored, b.words[0])
		return uint32(at)
	}
	p.stored = append(p.stored, b.summary...)
	b.eachWord(func(_ int, w uint64) bool {
		p.stored = append(p.stored, w)
		return true
	})
	return uint32(at)
}

func (p *pool) equal(at uint32, b *bitmap) bool {
	stored := p.stored[at:]
	if p.rules <= flatRules {
		return stored[0] == b.words[0]
	}
	for i, s := range b.summary {
		if stored[i] != s {
			return false
		}
	}
	// Equal summaries: the same words are stored, in the same order.
	next, same := len(b.summary), true
	b.eachWord(func(_ int, w uint64) bool {
		same = stored[next] == w
		next++
		return same
	})
	return same
}

// eachWord calls yield for the words that are not zero, in order, until it
// returns false.
func (b *bitmap) eachWord(yield func(i int, w uint64) bool) {
	for j, s := range b.summary {
		for ; s != 0; s &= s - 1 {
			i := j*64 + bits.TrailingZeros64(s)
			if !yield(i, b.words[i]) {
				return
			}
		}
	}
}
