package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// MaxVNI is the largest network identifier of VXLAN; 0 is none.
const MaxVNI = 1<<24 - 1

// vniTries is how many numbers are tried for a name.
const vniTries = 64

// VNI is the network identifier of a name, which it gets if it has none. A number belongs to one name until ReleaseVNI.
func (s *Store) VNI(ctx context.Context, name string) (uint32, error) {
	h := fnv.New32a()
	h.Write([]byte(name))
	candidate := h.Sum32()
	for range vniTries {
		if n, err := s.vniOf(ctx, name); n != 0 || err != nil {
			return n, err
		}
		number := 1 + candidate%MaxVNI
		_, err := s.commit(ctx, "allocating a VNI for "+name, []clientv3.Cmp{absent(s.keys.vni(name)), absent(s.keys.vniNumber(number))},
			clientv3.OpPut(s.keys.vni(name), encode(number)), clientv3.OpPut(s.keys.vniNumber(number), encode(name)))
		if err != nil {
			if n, again := s.vniOf(ctx, name); again == nil && n != 0 { // the outcome was not known
				return n, nil
			}
			return 0, err
		}
		candidate = candidate*2654435761 + 1
	}
	if n, err := s.vniOf(ctx, name); n != 0 || err != nil {
		return n, err
	}
	return 0, fmt.Errorf("VNI for %q: %d numbers in a row were in use", name, vniTries)
}

// vniOf is the number of a name; 0: it has none.
func (s *Store) vniOf(ctx context.Context, name string) (n uint32, err error) {
	value, _, err := s.get(ctx, s.keys.vni(name))
	if value == nil || err != nil {
		return 0, err
	}
	if err := json.Unmarshal(value, &n); err != nil || n == 0 || n > MaxVNI {
		return 0, fmt.Errorf("%s: %q: allowed are 1 to %d", s.keys.vni(name), value, MaxVNI)
	}
	return n, nil
}

// ReleaseVNI takes a name's number back, for other names.
func (s *Store) ReleaseVNI(ctx context.Context, name string) error {
	n, err := s.vniOf(ctx, name)
	if n == 0 || err != nil {
		return err
	}
	_, err = s.commit(ctx, "releasing the VNI of "+name,
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(s.keys.vni(name)), "=", encode(n))},
		clientv3.OpDelete(s.keys.vni(name)), clientv3.OpDelete(s.keys.vniNumber(n)))
	return err
}
