//go:build !nocluster

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/nsgd/nsgd/dataplane/cluster"
	"github.com/spf13/cobra"
)

// clusterFlags say where etcd is.
type clusterFlags struct {
	endpoints                []string
	files                    cluster.TLSFiles
	username, password, file string
	prefix                   string
}

func init() { addVerb(newCluster) }

func newCluster(g *global) *cobra.Command {
	var f clusterFlags
	c := &cobra.Command{
		Use:   "cluster",
		Short: "Have many hosts carry one policy, by etcd",
		Long: `Have many hosts carry one policy, by etcd.

Apply writes a generation: a policy with all that it is read with. Every host tries it, and it becomes the current one when
all can carry it. Where etcd is can also be said as for etcdctl: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ETCDCTL_CERT,
ETCDCTL_KEY, and ETCDCTL_USER with NAME:PASSWORD.`,
		Example: `  nsgctl cluster apply policy --endpoints http://127.0.0.1:2379
  nsgctl cluster hosts --endpoints http://127.0.0.1:2379`,
	}
	p := c.PersistentFlags()
	p.StringSliceVar(&f.endpoints, "endpoints", nil, "etcd's URLs, such as https://etcd1:2379")
	p.StringVar(&f.files.Certificate, "etcd-cert", "", "this client's certificate for etcd, in PEM")
	p.StringVar(&f.files.Key, "etcd-key", "", "its key, in PEM")
	p.StringVar(&f.files.CA, "etcd-ca", "", "the CA of etcd's certificates, in PEM")
	p.StringVar(&f.username, "username", "", "user of etcd; without one the certificate says who asks")
	p.StringVar(&f.file, "password-file", "", "file with the user's password")
	p.StringVar(&f.prefix, "prefix", cluster.DefaultPrefix, "prefix of the cluster's keys")
	c.AddCommand(newClusterApply(g, &f), newClusterRollback(g, &f), newClusterStatus(g, &f), newClusterHosts(g, &f), newClusterNICs(g, &f), newClusterMove(g, &f),
		newClusterHistory(g, &f), newClusterDiff(g, &f))
	needCommand(c)
	return c
}

// open is the cluster that the flags name. Close it.
func (f *clusterFlags) open(c *cobra.Command) (*cluster.Store, error) {
	o := cluster.StoreOptions{Endpoints: f.endpoints, TLS: f.files, Username: f.username, Password: f.password, Prefix: f.prefix}
	if len(o.Endpoints) == 0 && os.Getenv("ETCDCTL_ENDPOINTS") != "" {
		o.Endpoints = strings.Split(os.Getenv("ETCDCTL_ENDPOINTS"), ",")
	}
	if len(o.Endpoints) == 0 {
		return nil, usageError{fmt.Errorf("%s: --endpoints is missing, and so is ETCDCTL_ENDPOINTS: etcd's URLs are needed", verbName(c))}
	}
	if err := cluster.CheckPrefix(f.prefix); err != nil {
		return nil, usageError{fmt.Errorf("%s: --prefix: %w", verbName(c), err)}
	}
	o.TLS.Certificate = cmp.Or(o.TLS.Certificate, os.Getenv("ETCDCTL_CERT"))
	o.TLS.Key = cmp.Or(o.TLS.Key, os.Getenv("ETCDCTL_KEY"))
	o.TLS.CA = cmp.Or(o.TLS.CA, os.Getenv("ETCDCTL_CACERT"))
	if n := strings.Count(fmt.Sprint(o.TLS.Certificate != "", o.TLS.Key != "", o.TLS.CA != ""), "true"); n == 1 || n == 2 {
		return nil, usageError{fmt.Errorf("%s: --etcd-cert, --etcd-key and --etcd-ca go together", verbName(c))}
	}
	if name, password, ok := strings.Cut(os.Getenv("ETCDCTL_USER"), ":"); ok && o.Username == "" {
		o.Username, o.Password = name, password
	}
	if (f.username == "") != (f.file == "") {
		return nil, usageError{fmt.Errorf("%s: --username and --password-file go together", verbName(c))}
	}
	if f.file != "" {
		text, err := os.ReadFile(f.file)
		if err != nil {
			return nil, err
		}
		o.Password = strings.TrimRight(string(text), "\r\n")
	}
	return cluster.Open(o)
}

// withStore asks a cluster.
func withStore[T any](c *cobra.Command, f *clusterFlags, ask func(*cluster.Store) (T, error)) (none T, err error) {
	store, err := f.open(c)
	if err != nil {
		return none, err
	}
	defer store.Close()
	return ask(store)
}

// withView is withStore about what etcd holds now.
func withView[T any](c *cobra.Command, f *clusterFlags, ask func(*cluster.Store, *cluster.View) (T, error)) (T, error) {
	return withStore(c, f, func(s *cluster.Store) (none T, err error) {
		view, err := s.View(c.Context())
		if err != nil {
			return none, err
		}
		return ask(s, view)
	})
}

// me is who applies: a user at a machine.
func me() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = cmp.Or(os.Getenv("SUDO_USER"), u.Username)
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// atMost refuses more arguments.
func atMost(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError{fmt.Errorf("%s: %d arguments: at most %s", verbName(c), len(args), what)}
		}
		return nil
	}
}

// parseNumber reads a generation's number.
func parseNumber(c *cobra.Command, text string) (uint64, error) {
	var n uint64
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil || n == 0 || fmt.Sprint(n) != text {
		return 0, usageError{fmt.Errorf("%s: %q: a generation's number is needed, 1 or more", verbName(c), text)}
	}
	return n, nil
}

var errNoHead = errors.New("there is no current generation: nsgctl cluster apply writes the first one")
