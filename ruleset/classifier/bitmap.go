package classifier

import (
	"math/bits"
	"slices"
)

// A block has blockWords words, and a part has 64 words in blocks blocks.
const (
	blockWords = 8
	blocks     = 64 / blockWords
)

// part is 64 words of a stored bitmap: a bit for each word that is not zero, and the
// offset of each block. Equal blocks are stored once, since the bitmaps of neighbouring
// intervals differ in a rule or two. A block of zeros is neither stored nor read.
type part struct {
	summary uint64
	blocks  [blocks]uint32
}

// bitmap is a set of rules that is being built. parts and hash are out of date until the
// pool settles it.
type bitmap struct {
	words  []uint64
	stale  []uint64 // a bit for each block that has changed since settle
	parts  []part
	hashes []uint64 // by block; 0 when the block is empty
	hash   uint64   // the XOR of hashes
}

// members is a set of rules, as masks of the words of a bitmap.
type members []wordMask

type wordMask struct {
	word int
	mask uint64
}

// add puts a rule into m. Rules must come in ascending order.
func (m *members) add(rule int) {
	if n := len(*m); n > 0 && (*m)[n-1].word == rule/64 {
		(*m)[n-1].mask |= 1 << (rule % 64)
		return
	}
	*m = append(*m, wordMask{word: rule / 64, mask: 1 << (rule % 64)})
}

// flip adds the rules of m that b lacks and removes those that it has.
func (b *bitmap) flip(m members) {
	for _, c := range m {
		b.words[c.word] ^= c.mask
		b.touch(c.word / blockWords)
	}
}

// touch marks a block as changed.
func (b *bitmap) touch(block int) { b.stale[block/64] |= 1 << (block % 64) }

// pool stores each different bitmap once. Up to flatRules rules, a bitmap is stored as
// words and its class is the offset of the first word. Above, it is stored as parts and
// its class is the number of the first part.
type pool struct {
	length   int // of a bitmap, in words
	flat     bool
	words    []uint64
	parts    []part
	blockAt  map[uint64]uint32 // from hash, or the next free number after it, to offset
	classAt  map[uint64]uint32
	anything []uint64 // the rules that match every value of the fields done so far
}

func newPool(rules int) *pool {
	p := &pool{
		length: wordsFor(rules), flat: rules <= flatRules,
		blockAt: make(map[uint64]uint32), classAt: make(map[uint64]uint32),
	}
	if !p.flat { // round up to whole blocks
		p.length = (p.length + blockWords - 1) / blockWords * blockWords
	}
	p.anything = ones(p.length)
	return p
}

func ones(words int) []uint64 {
	all := make([]uint64, words)
	for i := range all {
		all[i] = 1<<64 - 1
	}
	return all
}

// wordsFor is the number of words that hold n bits, at least 1.
func wordsFor(n int) int { return max(1, (n+63)/64) }

// empty makes a bitmap of no rules.
func (p *pool) empty() *bitmap {
	parts := wordsFor(p.length)
	return &bitmap{
		words: make([]uint64, p.length), stale: make([]uint64, wordsFor(parts*blocks)),
		parts: make([]part, parts), hashes: make([]uint64, parts*blocks),
	}
}

// intern returns the class of the stored bitmap that equals b, and stores b if there is
// none. It compares contents: two contents with one hash cost one more step.
func (p *pool) intern(b *bitmap) uint32 {
	if p.flat {
		return p.block(hash(b.words), b.words)
	}
	p.settle(b)
	return p.store(b.hash, b.parts)
}

// store returns the number of the first of the stored parts that equal the given ones, with
// hash h, and stores these if there are none.
func (p *pool) store(h uint64, parts []part) uint32 {
	for ; ; h++ {
		at, ok := p.classAt[h]
		if !ok {
			at = offset(len(p.parts))
			p.parts = append(p.parts, parts...)
			p.classAt[h] = at
			return at
		}
		if end := int(at) + len(parts); end <= len(p.parts) && slices.Equal(p.parts[at:end], parts) {
			return at
		}
	}
}

// settle stores the blocks of b that changed.
func (p *pool) settle(b *bitmap) {
	for i := range b.stale {
		for ; b.stale[i] != 0; b.stale[i] &= b.stale[i] - 1 {
			p.settleBlock(b, i*64+bits.TrailingZeros64(b.stale[i]))
		}
	}
}

func (p *pool) settleBlock(b *bitmap, block int) {
	words := b.words[block*blockWords:][:blockWords]
	part, at := &b.parts[block/blocks], block%blocks
	var summary, h uint64
	for j, w := range words {
		if w != 0 {
			summary |= 1 << (at*blockWords + j)
		}
	}
	part.summary = part.summary&^((1<<blockWords-1)<<(at*blockWords)) | summary
	part.blocks[at] = 0
	if summary != 0 {
		h = hash(words)
		part.blocks[at] = p.block(h, words)
		h = mix(h, uint64(block))
	}
	b.hash ^= b.hashes[block] ^ h
	b.hashes[block] = h
}

// block returns the offset of the stored words that equal the given ones, with hash h, and
// stores these if there are none.
func (p *pool) block(h uint64, words []uint64) uint32 {
	for ; ; h++ {
		at, ok := p.blockAt[h]
		if !ok {
			at = offset(len(p.words))
			p.words = append(p.words, words...)
			p.blockAt[h] = at
			return at
		}
		if slices.Equal(p.words[at:int(at)+len(words)], words) {
			return at
		}
	}
}

// offset narrows an offset to the bits that a slot of an index has for it.
func offset(n int) uint32 {
	if n >= ofRun {
		panic("classifier: rules need more than 2^30 words of bitmaps, which are 8 GiB")
	}
	return uint32(n)
}

func hash(words []uint64) uint64 {
	var h uint64
	for _, w := range words {
		h = mix(h, w)
	}
	return h
}

// mix is one step of wyhash. The hash needs no secret seed, because rules come from the
// administrator.
func mix(h, w uint64) uint64 {
	high, low := bits.Mul64(h^0xa0761d6478bd642f, w^0xe7037ed1a0b428db)
	return high ^ low
}
