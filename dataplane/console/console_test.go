package console

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/history"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

// rig is a running engine on memory devices with the lab's policy, and a console.
type rig struct {
	*testing.T
	engine  *dataplane.Engine
	service *inspect.Service
	devices []*tuntest.Memory
	policy  string // folder
	*Console
}

var specs = []topology.Spec{
	{Kind: topology.NetworkInterface, Reference: "vm1-nic"}, {Kind: topology.NetworkInterface, Reference: "vm2-nic"},
	{Kind: topology.NetworkInterface, Reference: "vm3-nic"}, {Kind: topology.NetworkInterface, Reference: "vm4-nic"}, {Kind: topology.Internet},
}

const internet = 4 // index of its attachment

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lab")
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	return newRigOf(t, filepath.Join(dir, "policy"), specs)
}

// newRigOf is newRig for another policy.
func newRigOf(t *testing.T, policy string, specs []topology.Spec) *rig {
	t.Helper()
	r := &rig{T: t, policy: policy}
	files := inspect.NewPolicyFiles("", r.policy)
	set, err := files.Load()
	if err != nil {
		t.Fatal(err)
	}
	if r.engine, err = dataplane.New(set, dataplane.Options{Attachments: specs, Workers: 1, Flows: conntrack.Options{Max: 1024}}); err != nil {
		t.Fatal(err)
	}
	var devices []tun.Device
	for range specs {
		d, err := tuntest.NewMemory("eth0", 1, 256)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		r.devices, devices = append(r.devices, d), append(devices, d)
	}
	if err := r.engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	remembered, err := history.New(history.Options{Engine: r.engine})
	if err != nil {
		t.Fatal(err)
	}
	r.service = inspect.NewService(inspect.Options{Engine: r.engine, Policy: files, Places: make([]inspect.Place, len(specs)), Version: "test", History: remembered, Earlier: 2})
	if r.Console, err = New(Options{Service: r.service, Pages: fstest.MapFS{"index.html": {Data: []byte(`<link rel="stylesheet" href="style.css"><p>index</p>`)}, "style.css": {Data: []byte("p { margin: 0; }")}, "main.js": {Data: []byte("main()")}, "README.md": {}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.engine.Run(ctx) }()
	go func() { done <- remembered.Run(ctx) }()
	t.Cleanup(func() {
		r.End()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return r
}

// send lets the first packet of a connection come from an attachment.
func (r *rig) send(from int, src, dst string, port uint16) {
	r.Helper()
	before := r.engine.AttachmentCounts()[from].ReceivePackets
	p := packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: 40000, DstPort: port, Flags: "S"})
	if !r.devices[from].Inject(0, append(make([]byte, tun.HeaderLen), p...)) {
		r.Fatal("memory device is full")
	}
	r.eventually("the packet is counted", func() bool { return r.engine.AttachmentCounts()[from].ReceivePackets > before })
}

func (r *rig) eventually(what string, condition func() bool) {
	r.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !condition(); <-tick.C {
		if time.Now().After(end) {
			r.Fatalf("%s: never", what)
		}
	}
}

// get asks, as a browser on this host does.
func (r *rig) get(path string, header ...string) *httptest.ResponseRecorder {
	r.Helper()
	q := httptest.NewRequest("GET", "http://127.0.0.1:9646"+Path+path, nil)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
		q.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w
}

// decoded is the answer to a question.
func decoded[T any](r *rig, path string) (v T) {
	r.Helper()
	w := r.get("data/" + path)
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK {
		r.Fatalf("%s: %d %s: %v", path, w.Code, w.Body, err)
	}
	return v
}

func TestOtherOriginsAreRefused(t *testing.T) {
	r := newRig(t)
	for name, tt := range map[string]struct {
		header []string
		want   int
	}{
		"a browser on this host":                      {nil, 200},
		"an IPv6 address":                             {[]string{"Host", "[::1]:9646"}, 200},
		"localhost":                                   {[]string{"Host", "localhost:9646"}, 200},
		"a name that leads here (DNS rebinding)":      {[]string{"Host", "evil.example:9646"}, 403},
		"that name with a password":                   {[]string{"Host", "evil.example:9646", "Authorization", "Basic eDp5"}, 200},
		"a page of the same origin":                   {[]string{"Origin", "http://127.0.0.1:9646", "Sec-Fetch-Site", "same-origin"}, 200},
		"a page of another origin":                    {[]string{"Origin", "http://evil.example"}, 403},
		"a page without an origin":                    {[]string{"Origin", "null"}, 403},
		"a page of another site, by an image say":     {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		"a page of another port of this host":         {[]string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}, 403},
		"a link on a page of another site":            {[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
		"a name that ends with that of this host":     {[]string{"Host", "evil.localhost.example"}, 403},
		"a port of another server on the same origin": {[]string{"Origin", "http://127.0.0.1:80"}, 403},
	} {
		for _, path := range []string{"", "data/names"} {
			w := r.get(path, tt.header...)
			if w.Code != tt.want {
				t.Errorf("%s: %q: %d %s, want %d", name, path, w.Code, w.Body, tt.want)
			}
			if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-ZMIWxFqsI8wXm9tNjoL6Cyi5nRfO7zhfynHh3P3TR9s='; img-src") {
				t.Errorf("%s: the page may load %q", name, got)
			}
		}
	}
}

func TestPagesAreSentWholeOnceAndSmall(t *testing.T) {
	r := newRig(t)
	plain, zipped := r.get("main.js"), r.get("main.js", "Accept-Encoding", "gzip, br")
	if plain.Body.String() != "main()" || zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("%q, %v", plain.Body, zipped.Header())
	}
	if again := r.get("main.js", "If-None-Match", plain.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
		t.Errorf("%d %q", again.Code, again.Body)
	}
	for _, path := range []string{"README.md", "../metrics", "data/", "data/reload"} {
		if w := r.get(path); w.Code == http.StatusOK {
			t.Errorf("%s: %q", path, w.Body)
		}
	}
}

// What a reader can't ask is refused in words.
func TestQuestionsAreRefusedInWords(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"data/explain?from=internet":         "to: it is missing",
		"data/flows?filter=prot+x":           "filter: column 1",
		"data/flows?limit=10001":             `limit: \"10001\": allowed are 1 to 10000`,
		"data/drops?since=x":                 "since: \\\"x\\\": allowed is a time such as 10m",
		"data/drops?since=1000h":             "since: \\\"1000h0m0s\\\": allowed are",
		"data/compare?old=1&new=7":           `new: \"7\": allowed are candidate and a generation that is kept`,
		"data/compare?old=candidate&new=1":   "no candidate is judged",
		"data/cuts":                          "no candidate is judged",
		"data/capture?seconds=61":            "seconds",
		"data/capture?filter=prot+x":         "filter: column 1",
		"events/rules?networkInterface=none": `event: refused\ndata: "`,
		"events/rules":                       "one of both is needed",
		"events/packets?kind=some":           "allowed are decided, denied and all",
		"events/packets?filter=nic+none":     "event: refused",
	} {
		w := r.get(path)
		if got := strings.ReplaceAll(w.Body.String(), "\n", `\n`); !strings.Contains(got, want) || strings.HasPrefix(path, "data/") && w.Code == http.StatusOK {
			t.Errorf("%s: %d %s, want %s", path, w.Code, got, want)
		}
	}
}

// replaceIn changes a document of the policy.
func replaceIn(t *testing.T, file, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not contain %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), old, replacement)), 0o644); err != nil {
		t.Fatal(err)
	}
}
