package template

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// guidNamespace is Azure's namespace of guid(). newGuid() has another, so that the two never
// give the same UUID.
var (
	guidNamespace    = [16]byte{0x11, 0xfb, 0x06, 0xfb, 0x71, 0x2d, 0x4d, 0xdd, 0x98, 0xc7, 0xe7, 0x1b, 0xbd, 0x58, 0x88, 0x30}
	newGUIDNamespace = [16]byte{0x8d, 0x3c, 0x51, 0x40, 0x5e, 0x1b, 0x4f, 0x5a, 0xa0, 0x2e, 0x6e, 0x73, 0x67, 0x64, 0x67, 0x64}
)

// uniqueString is a hash of 64 bits over the arguments joined by "-", in 13 characters of
// base 32. It gives published values of Azure's.
func uniqueString(_ frame, args []any) (any, error) {
	s, err := argStrings(args)
	if err != nil {
		return nil, err
	}
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	hash := hash64([]byte(strings.Join(s, "-")))
	var text [13]byte
	for i := range text {
		text[i] = alphabet[hash>>59]
		hash <<= 5
	}
	return string(text[:]), nil
}

// hash64 is uniqueString's hash: two halves of 32 bits similar to MurmurHash3, with its
// finalizer.
func hash64(data []byte) uint64 {
	const c1, c2 = 597_399_067, 2_869_860_233
	mix1 := func(k uint32) uint32 { return bits.RotateLeft32(k*c1, 15) * c2 }
	mix2 := func(k uint32) uint32 { return bits.RotateLeft32(k*c2, 17) * c1 }
	length := uint32(len(data))
	var h1, h2 uint32
	for ; len(data) >= 8; data = data[8:] {
		h1 ^= mix1(binary.LittleEndian.Uint32(data))
		h1 = (bits.RotateLeft32(h1, 19)+h2)*5 + 1_444_728_091
		h2 ^= mix2(binary.LittleEndian.Uint32(data[4:]))
		h2 = (bits.RotateLeft32(h2, 13)+h1)*5 + 197_830_471
	}
	var tail [8]byte
	copy(tail[:], data)
	h1 ^= mix1(binary.LittleEndian.Uint32(tail[:]))
	h2 ^= mix2(binary.LittleEndian.Uint32(tail[4:]))
	h1 ^= length
	h2 ^= length
	h1 += h2
	h2 += h1
	h1, h2 = avalanche(h1), avalanche(h2)
	h1 += h2
	h2 += h1
	return uint64(h2)<<32 | uint64(h1)
}

func avalanche(h uint32) uint32 {
	h = (h ^ h>>16) * 2_246_822_507
	h = (h ^ h>>13) * 3_266_489_909
	return h ^ h>>16
}

// guid is the name-based UUID (RFC 4122, version 5) of the arguments joined by "-" in Azure's
// namespace.
func guid(f frame, args []any) (any, error) {
	texts := make([]string, len(args))
	for i, arg := range args {
		switch arg.(type) {
		case []any, map[string]any, nil:
			return nil, errors.New("allowed are texts, numbers and bools")
		}
		var err error
		if texts[i], err = f.asText(arg); err != nil {
			return nil, err
		}
	}
	return nameUUID(guidNamespace, strings.Join(texts, "-")), nil
}

func nameUUID(namespace [16]byte, name string) string {
	h := sha1.New()
	h.Write(namespace[:])
	h.Write([]byte(name))
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	x := hex.EncodeToString(u)
	return fmt.Sprintf("%s-%s-%s-%s-%s", x[:8], x[8:12], x[12:16], x[16:20], x[20:])
}
