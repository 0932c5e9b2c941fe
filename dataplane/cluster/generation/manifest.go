package generation

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// ChunkSize is how long a chunk is at most, in bytes: three fit into a request to etcd.
	ChunkSize = 512 << 10
	// MaxSealed is how long a sealed manifest is at most, in bytes.
	MaxSealed = 64 << 10
	// MaxMessage and MaxWho bound what people say of a generation, in bytes.
	MaxMessage, MaxWho = 4096, 256
)

// Manifest says what a generation is.
type Manifest struct {
	Number uint64 `json:"number"` // from 1; it only rises, also by a rollback
	// Tree is the hash of the bundle's archive, Bundle that of the compressed archive.
	Tree   Hash `json:"tree"`
	Bundle Hash `json:"bundle"`
	// Size and Expanded are the bytes of the compressed archive and of the archive.
	Size     int64  `json:"size"`
	Expanded int64  `json:"expanded"`
	Chunks   []Hash `json:"chunks"`
	// Who wrote it, when by the writer's clock, with which nsgctl.
	Who     string    `json:"who"`
	When    time.Time `json:"when"`
	Version string    `json:"version"`
	Message string    `json:"message,omitempty"`
	// RollbackTo is the generation whose policy this one has again; 0: it is a policy of its own.
	RollbackTo uint64 `json:"rollbackTo,omitempty"`
}

// Describe fills in what a manifest says of a packed bundle.
func (m *Manifest) Describe(p *Packed) {
	m.Tree, m.Bundle, m.Size, m.Expanded = p.Tree, HashOf(p.Compressed), int64(len(p.Compressed)), p.Expanded
	m.Chunks = nil
	for chunk := range slices.Chunk(p.Compressed, ChunkSize) {
		m.Chunks = append(m.Chunks, HashOf(chunk))
	}
}

func (m *Manifest) check() error {
	switch {
	case m.Number == 0:
		return errors.New("manifest: number 0: generations begin at 1")
	case m.Size < 1 || m.Size > MaxCompressed:
		return fmt.Errorf("manifest: size %d: allowed are 1 to %d", m.Size, MaxCompressed)
	case int64(len(m.Chunks)) != (m.Size+ChunkSize-1)/ChunkSize:
		return fmt.Errorf("manifest: %d chunks for %d bytes", len(m.Chunks), m.Size)
	case len(m.Message) > MaxMessage:
		return fmt.Errorf("manifest: message of %d bytes: at most %d", len(m.Message), MaxMessage)
	case len(m.Who) > MaxWho || len(m.Version) > MaxWho:
		return fmt.Errorf("manifest: who or version is longer than %d bytes", MaxWho)
	}
	return nil
}

// Join puts chunks together again, and holds them against the manifest.
func (m *Manifest) Join(chunks [][]byte) ([]byte, error) {
	if len(chunks) != len(m.Chunks) {
		return nil, fmt.Errorf("generation %d: %d chunks of %d", m.Number, len(chunks), len(m.Chunks))
	}
	for i, chunk := range chunks {
		if HashOf(chunk) != m.Chunks[i] {
			return nil, fmt.Errorf("generation %d: chunk %d is not what its name says", m.Number, i+1)
		}
	}
	whole := slices.Concat(chunks...)
	if int64(len(whole)) != m.Size || HashOf(whole) != m.Bundle {
		return nil, fmt.Errorf("generation %d: the chunks together are not what the manifest says", m.Number)
	}
	return whole, nil
}

// Unpack expands a compressed archive, and holds it against the manifest.
func (m *Manifest) Unpack(compressed []byte) (*Bundle, error) {
	if HashOf(compressed) != m.Bundle {
		return nil, fmt.Errorf("generation %d: the bundle is not what the manifest says", m.Number)
	}
	b, tree, err := Unpack(compressed)
	if err == nil && tree != m.Tree {
		err = errors.New("the archive is not what the manifest says")
	}
	if err != nil {
		return nil, fmt.Errorf("generation %d: %w", m.Number, err)
	}
	return b, nil
}

// sealed is how a manifest is stored.
type sealed struct {
	Manifest  json.RawMessage `json:"manifest"`
	Signature []byte          `json:"signature,omitempty"` // ed25519, of signed(Manifest)
}

// signed is what a signature is of. The first line keeps signatures of other things away.
func signed(manifest []byte) []byte { return slices.Concat([]byte("nsgd generation 1\n"), manifest) }

// Seal makes a manifest what is stored, signed unless the key is nil.
func (m *Manifest) Seal(key ed25519.PrivateKey) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	s := sealed{Manifest: text}
	if key != nil {
		s.Signature = ed25519.Sign(key, signed(text))
	}
	return json.Marshal(&s)
}

// Unseal reads a stored manifest. With a key, only what its owner has signed is taken.
func Unseal(data []byte, key ed25519.PublicKey) (*Manifest, error) {
	if len(data) > MaxSealed {
		return nil, fmt.Errorf("manifest: %d bytes: at most %d", len(data), MaxSealed)
	}
	var s sealed
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if key != nil {
		switch {
		case len(s.Signature) == 0:
			return nil, errors.New("manifest: it is not signed, and cluster.publicKey asks for a signature: nsgctl cluster apply --sign KEY")
		case !ed25519.Verify(key, signed(s.Manifest), s.Signature):
			return nil, errors.New("manifest: its signature is not by the owner of cluster.publicKey")
		}
	}
	m := &Manifest{}
	if err := json.Unmarshal(s.Manifest, m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return m, m.check()
}

// IsSigned reports whether a stored manifest has a signature, whoever made it.
func IsSigned(data []byte) bool {
	var s sealed
	return json.Unmarshal(data, &s) == nil && len(s.Signature) > 0
}

// ParsePrivateKey reads an ed25519 key in PEM, as "openssl genpkey -algorithm ed25519" writes it.
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block: openssl genpkey -algorithm ed25519 writes one")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T: allowed is ed25519", key)
	}
	return private, nil
}

// ParsePublicKey reads an ed25519 key in PEM, as "openssl pkey -pubout" writes it.
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block: openssl pkey -pubout writes one")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T: allowed is ed25519", key)
	}
	return public, nil
}
