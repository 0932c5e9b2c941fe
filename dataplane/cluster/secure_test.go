package cluster

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve/servetest"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// newSecureServer starts an etcd with certificates on both sides, whose users are the certificates' names. It has the
// roles of README.md.
func newSecureServer(t *testing.T, hosts ...string) (*server, *servetest.Authority) {
	t.Helper()
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	for _, name := range append([]string{"server", "root", "alice", "bob"}, hosts...) {
		ca.Issue(name, nil)
	}
	s := newServerWith(t, func(s *server) {
		s.client = strings.Replace(s.client, "http:", "https:", 1)
		s.arguments = append([]string{"--cert-file", ca.Path("server.crt"), "--key-file", ca.Path("server.key"), "--client-cert-auth", "--trusted-ca-file", ca.Path("ca.crt")}, s.arguments...)
		s.files = filesOf(ca, "root")
	})
	root := s.open().client
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	grant := func(role, key, end string, kind clientv3.PermissionType) {
		t.Helper()
		must(root.RoleGrantPermission(t.Context(), role, key, end, kind))
	}
	user := func(name, role string) {
		t.Helper()
		must(root.UserAddWithOptions(t.Context(), name, "", &clientv3.UserAddOptions{NoPassword: true}))
		must(root.UserGrantRole(t.Context(), name, role))
	}
	below := func(prefix string) (key, end string) { return prefix, clientv3.GetPrefixRangeEnd(prefix) }
	must(root.RoleAdd(t.Context(), "nsgd-apply"))
	key, end := below("/nsgd/")
	grant("nsgd-apply", key, end, clientv3.PermissionType(clientv3.PermReadWrite))
	for _, host := range hosts {
		role := "nsgd-host-" + host
		must(root.RoleAdd(t.Context(), role))
		grant(role, key, end, clientv3.PermissionType(clientv3.PermRead))
		for _, key := range []string{"/nsgd/host/", "/nsgd/carries/", "/nsgd/health/"} {
			grant(role, key+host, "", clientv3.PermissionType(clientv3.PermReadWrite))
		}
		for _, prefix := range []string{"/nsgd/claim/", "/nsgd/vni/"} {
			from, to := below(prefix)
			grant(role, from, to, clientv3.PermissionType(clientv3.PermReadWrite))
		}
		user(host, role)
	}
	user("alice", "nsgd-apply")
	must(root.RoleAdd(t.Context(), "nsgd-move"))
	grant("nsgd-move", key, end, clientv3.PermissionType(clientv3.PermRead))
	from, to := below("/nsgd/move/")
	grant("nsgd-move", from, to, clientv3.PermissionType(clientv3.PermReadWrite))
	user("bob", "nsgd-move")
	must(root.UserAddWithOptions(t.Context(), "root", "", &clientv3.UserAddOptions{NoPassword: true}))
	must(root.UserGrantRole(t.Context(), "root", "root"))
	must(root.AuthEnable(t.Context()))
	return s, ca
}

func filesOf(ca *servetest.Authority, name string) TLSFiles {
	return TLSFiles{Certificate: ca.Path(name + ".crt"), Key: ca.Path(name + ".key"), CA: ca.Path("ca.crt")}
}

func TestRolesSuffice(t *testing.T) {
	s, ca := newSecureServer(t, "a", "b")
	as := func(name string) *Store { s.files = filesOf(ca, name); return s.open() }
	alice, store := as("alice"), as("a")
	a := newHostIn(t, s, t.TempDir(), AgentOptions{Host: "a", Health: func(string) []string { return []string{"p"} }}, "nic1")
	eventually(t, "a has nic1", func() error {
		v, err := alice.View(t.Context())
		if err == nil && v.Claims["nic1"].Host != "a" {
			err = fmt.Errorf("claims %v", v.Claims)
		}
		return err
	})
	as("b")
	b := newHostIn(t, s, filepath.Join(t.TempDir(), "b"), AgentOptions{Host: "b", Health: func(string) []string { return []string{"q"} }}, "nic1", "nic2")
	eventually(t, "both are registered", func() error { return registered(alice, 2) })
	mustApply(t, alice, applyOf(t, "one"))
	a.is("one", "nic1")
	b.is("one", "nic2")
	bob := as("bob")
	if _, err := bob.Move(t.Context(), &MoveOptions{NIC: "nic1", To: "b", By: "bob", Wait: 20 * time.Second, Now: time.Now}); err != nil {
		t.Error(err)
	}
	a.is("one")
	b.is("one", "nic1", "nic2")
	if v, err := alice.View(t.Context()); err != nil || !v.Health["a"].has("p") || !v.Health["b"].has("q") {
		t.Errorf("hosts tell no health: %v, %v", v.Health, err)
	}
	if n, err := store.VNI(t.Context(), "group"); err != nil || n == 0 {
		t.Errorf("a's VNI: %d, %v", n, err)
	}
	for _, key := range []string{store.keys.head(), store.keys.offer(), store.keys.generation(2), store.keys.chunk(policyOf(t, "x").Tree), store.keys.host("b"), store.keys.report("b"), store.keys.health("b"), store.keys.move("nic1")} {
		if _, err := store.client.Put(soon(t), key, "x"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("host a may write %s: %v", key, err)
		}
	}
	for _, key := range []string{store.keys.head(), store.keys.claim("nic1"), store.keys.host("b"), store.keys.report("b"), store.keys.age()} {
		if _, err := bob.client.Put(soon(t), key, "x"); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("bob, who moves, may write %s: %v", key, err)
		}
	}
	if _, err := store.Apply(t.Context(), applyOf(t, "two")); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("host a applies: %v", err)
	}
}
