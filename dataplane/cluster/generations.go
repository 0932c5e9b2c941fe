package cluster

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/cluster/generation"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Record is a stored generation, without what it consists of.
type Record struct {
	*generation.Manifest
	// Sealed is the manifest as it is stored.
	Sealed []byte
	// Fault says why the manifest can't be read; then Manifest holds the number alone.
	Fault error
}

// Generation reads a manifest. With a key, it must be signed by the key's owner.
func (s *Store) Generation(ctx context.Context, number uint64, key ed25519.PublicKey) (*Record, error) {
	text, _, err := s.get(ctx, s.keys.generation(number))
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, fmt.Errorf("generation %d: there is none: nsgctl cluster history lists those that there are", number)
	}
	m, err := generation.Unseal(text, key)
	if err == nil && m.Number != number {
		err = fmt.Errorf("manifest: it is of generation %d", m.Number)
	}
	if err != nil {
		return nil, fmt.Errorf("generation %d: %w", number, err)
	}
	return &Record{Manifest: m, Sealed: text}, nil
}

// Bundle reads what a generation consists of, compressed, and holds it against the hashes.
func (s *Store) Bundle(ctx context.Context, m *generation.Manifest) ([]byte, error) {
	chunks := make([][]byte, len(m.Chunks))
	for i, h := range m.Chunks {
		text, _, err := s.get(ctx, s.keys.chunk(h))
		if err != nil {
			return nil, err
		}
		if text == nil {
			return nil, fmt.Errorf("generation %d: chunk %d is missing", m.Number, i+1)
		}
		chunks[i] = text
	}
	return m.Join(chunks)
}

// History lists the stored generations, the newest first.
func (s *Store) History(ctx context.Context) ([]Record, error) {
	var list []Record
	err := s.each(ctx, s.keys.generations(), clientv3.GetPrefixRangeEnd(s.keys.generations()), 0, nil, func(kv *mvccpb.KeyValue) {
		number, ok := s.keys.parseGeneration(string(kv.Key))
		if !ok {
			return
		}
		m, err := generation.Unseal(kv.Value, nil)
		if err == nil && m.Number != number {
			err = fmt.Errorf("manifest: it is of generation %d", m.Number)
		}
		if err != nil {
			m = &generation.Manifest{Number: number}
		}
		list = append(list, Record{Manifest: m, Sealed: kv.Value, Fault: err})
	})
	slices.Reverse(list)
	return list, err
}

// write stores a generation under an offer: the chunks that are not there yet, then the manifest.
func (s *Store) write(ctx context.Context, o *Offering, m *generation.Manifest, sealed, compressed []byte) error {
	i := 0
	for chunk := range slices.Chunk(compressed, generation.ChunkSize) {
		key := s.keys.chunk(m.Chunks[i])
		i++
		if err := s.under(ctx, o, "writing a chunk", []clientv3.Cmp{absent(key)}, func(ctx context.Context) (bool, error) {
			there, _, err := s.get(ctx, key)
			return there != nil, err
		}, clientv3.OpPut(key, string(chunk))); err != nil {
			return err
		}
	}
	key := s.keys.generation(m.Number)
	return s.under(ctx, o, "writing the manifest", []clientv3.Cmp{absent(key)}, func(ctx context.Context) (bool, error) {
		there, _, err := s.get(ctx, key)
		return string(there) == string(sealed), err
	}, clientv3.OpPut(key, string(sealed)), clientv3.OpPut(s.keys.last(), encode(m.Number)))
}

// under makes a transaction that only the holder of an offer may make. Where the outcome is not known, or the
// conditions fail, done tells whether things are as they should be.
func (s *Store) under(ctx context.Context, o *Offering, what string, conditions []clientv3.Cmp, done func(context.Context) (bool, error), then ...clientv3.Op) error {
	for try := 0; ; try++ {
		r, err := s.commit(ctx, what, append([]clientv3.Cmp{same(s.keys.offer(), o.created)}, conditions...), then...)
		if err == nil && r.Succeeded {
			return nil
		}
		is, again := done(ctx)
		switch {
		case again == nil && is:
			return nil
		case err == nil && again == nil:
			return fmt.Errorf("%s: %w", what, s.whyNot(ctx, o))
		case try == 2 || ctx.Err() != nil:
			if err == nil {
				err = again
			}
			return err
		}
	}
}
