package classifier

import (
	"math/bits"
	"slices"
)

// blockWords is the number of words of a block, blocks the number of blocks that
// a part's 64 words make.
const (
	blockWords = 8
	blocks     = 64 / blockWords
)

// part is 64 words of a bitmap as they are stored: a bit for each word that is
// not zero, and where each block begins. Equal blocks are stored once: the
// bitmaps of neighbouring intervals differ in a rule or two. A block of zeros
// alone is not stored and not looked at.
type part struct {
	summary uint64
	blocks  [blocks]uint32
}

// bitmap is a set of rules that is being built. parts and hash lag behind words
// until the pool settles it.
type bitmap struct {
	words  []uint64
	stale  []uint64 // a bit for each block that changed since
	parts  []part
	hashes []uint64 // by block; 0 when the block is empty
	hash   uint64   // the XOR of hashes
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
// there.
func (b *bitmap) flip(m members) {
	for _, c := range m {
		b.words[c.word] ^= c.mask
		b.touch(c.word / blockWords)
	}
}

// touch notes that a block changed.
func (b *bitmap) touch(block int) { b.stale[block/64] |= 1 << (block % 64) }

// pool stores each different bitmap once. With no more than flatRules rules a
// bitmap is its words, and its class the offset of the first; else it is parts,
// and its class the number of the first.
type pool struct {
	length   int // of a bitmap, in words
	flat     bool
	words    []uint64
	parts    []part
	blockAt  map[uint64]uint32 // hash, or the next free number after it, to offset
	classAt  map[uint64]uint32
	anything []uint64 // the rules that match every value of the fields so far
}

func newPool(rules int) *pool {
	p := &pool{
		length: wordsFor(rules), flat: rules <= flatRules,
		blockAt: make(map[uint64]uint32), classAt: make(map[uint64]uint32),
	}
	if !p.flat { // whole blocks
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

// intern returns the class of the stored bitmap that equals b, storing b if it
// is the first of its content. Only equal content counts; a hash that two
// contents share costs one more step.
func (p *pool) intern(b *bitmap) uint32 {
	if p.flat {
		return p.block(hash(b.words), b.words)
	}
	p.settle(b)
	return p.store(b.hash, b.parts)
}

// store returns the number of the first of the stored parts that equal those given,
// whose hash is h, storing them if they are the first of their content.
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

// block returns the offset of the stored words that equal those given, whose hash
// is h, storing them if they are the first of their content.
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

// offset narrows a place in memory to what a slot of an index can hold.
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

// mix is one step of wyhash. Rules come from the administrator: the hash must
// spread, it needs no secret.
func mix(h, w uint64) uint64 {
	high, low := bits.Mul64(h^0xa0761d6478bd642f, w^0xe7037ed1a0b428db)
	return high ^ low
}
