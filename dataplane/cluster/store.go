package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	// DefaultPrefix is that of keys.
	DefaultPrefix = "/nsgd"
	// MaxEndpoints bounds the members of etcd that are named.
	MaxEndpoints = 16
	// patience bounds each request to etcd.
	patience = 5 * time.Second
	// dialPatience and alive find a connection that is dead.
	dialPatience, alive = 3 * time.Second, 2 * time.Second
	// page is how many keys one request reads.
	page = 1000
)

// redial is how soon a connection is tried again: gRPC's own way, up to two minutes, outlasts leases.
var redial = backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// StoreOptions say where etcd is and who asks.
type StoreOptions struct {
	// Endpoints are http:// or https:// URLs.
	Endpoints []string
	// TLS are files of PEM; empty: the endpoints are http.
	TLS TLSFiles
	// Username and Password are those of etcd; empty: the certificate says who asks.
	Username, Password string
	// Prefix of all keys, such as /nsgd.
	Prefix string
}

// TLSFiles are files of PEM: this side's certificate and key, and the CA of etcd's certificates.
type TLSFiles struct{ Certificate, Key, CA string }

// load reads the CA now, and the certificate at each connection, so that a renewed one counts.
func (f *TLSFiles) load() (*tls.Config, error) {
	if _, err := tls.LoadX509KeyPair(f.Certificate, f.Key); err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.Certificate, f.Key, err)
	}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate: a PEM block of type CERTIFICATE is needed", f.CA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
			return &pair, err
		},
	}, nil
}

// Store is a cluster's part of etcd. Safe for concurrent use.
type Store struct {
	client *clientv3.Client
	keys   keys
}

// Open makes a store. It does not wait for a connection. Close it.
func Open(o StoreOptions) (*Store, error) {
	if err := CheckPrefix(o.Prefix); err != nil {
		return nil, fmt.Errorf("prefix: %w", err)
	}
	if len(o.Endpoints) == 0 || len(o.Endpoints) > MaxEndpoints {
		return nil, fmt.Errorf("endpoints: %d of them: allowed are 1 to %d", len(o.Endpoints), MaxEndpoints)
	}
	config := clientv3.Config{
		Endpoints: o.Endpoints, Username: o.Username, Password: o.Password,
		DialTimeout: dialPatience, DialKeepAliveTime: alive, DialKeepAliveTimeout: alive, PermitWithoutStream: true,
		BackoffWaitBetween: 50 * time.Millisecond, MaxUnaryRetries: 3,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: 2 * time.Second})},
		Logger:      zap.NewNop(), // its messages are errors of requests, which callers tell
	}
	if o.TLS != (TLSFiles{}) {
		var err error
		if config.TLS, err = o.TLS.load(); err != nil {
			return nil, err
		}
	}
	client, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w", o.Endpoints, err)
	}
	return &Store{client, keys(o.Prefix + "/")}, nil
}

// Close ends the connections.
func (s *Store) Close() error { return s.client.Close() }

// RequestError is a request to etcd that failed: it may have taken place.
type RequestError struct {
	endpoints []string
	what      string
	err       error
}

// Error says where the request went.
func (e *RequestError) Error() string {
	err := e.err
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", patience)
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		err = fmt.Errorf("%w: etcd is full: etcdctl compact, defrag, and then alarm disarm", err)
	}
	return fmt.Sprintf("etcd at %s: %s: %v", strings.Join(e.endpoints, ", "), e.what, err)
}

// Unwrap is for errors.As.
func (e *RequestError) Unwrap() error { return e.err }

func (s *Store) failed(what string, err error) error {
	return &RequestError{s.client.Endpoints(), what, err}
}

// get reads one key; nil: there is none.
func (s *Store) get(ctx context.Context, key string) ([]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Get(ctx, key)
	if err != nil {
		return nil, 0, s.failed("reading "+key, err)
	}
	if len(r.Kvs) == 0 {
		return nil, 0, nil
	}
	return r.Kvs[0].Value, r.Kvs[0].ModRevision, nil
}

// commit makes a transaction. An error may mean that it took place: see isDefinite.
func (s *Store) commit(ctx context.Context, what string, conditions []clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := s.client.Txn(ctx).If(conditions...).Then(then...).Commit()
	if err != nil {
		return nil, s.failed(what, err)
	}
	return r, nil
}

// isRegistered finds out that a host has a registration now. A renewed lease does not say so: a member that stood still, and
// does not know yet that another one leads, renews leases that have ended there. A reading asks the other members.
func (s *Store) isRegistered(ctx context.Context, host string, epoch int64) error {
	r, err := s.client.Get(ctx, s.keys.host(host), clientv3.WithKeysOnly())
	if err != nil {
		return s.failed("asking for the registration", err)
	}
	if len(r.Kvs) == 0 || r.Kvs[0].CreateRevision != epoch {
		return fmt.Errorf("host %q: registration %d is gone, though its lease was renewed: it registers anew", host, epoch)
	}
	return nil
}

// absent and same are conditions of transactions.
func absent(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }

func same(key string, created int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", created)
}

func other(key string, created int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "!=", created)
}

// isDenied reports that etcd's roles don't allow what was asked.
func isDenied(err error) bool { return errors.Is(err, rpctypes.ErrPermissionDenied) }

// isLeaseGone reports that a lease has ended.
func isLeaseGone(err error) bool { return errors.Is(err, rpctypes.ErrLeaseNotFound) }
