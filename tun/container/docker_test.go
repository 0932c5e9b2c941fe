package container

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// service answers for containers at a socket as Docker does.
func service(t *testing.T, answers map[string]string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, known := answers[r.URL.Path]
		if !known {
			w.WriteHeader(http.StatusNotFound)
		}
		w.Write([]byte(answer))
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

func TestTheFirstServiceThatKnowsTheContainerSaysItsProcess(t *testing.T) {
	docker := service(t, map[string]string{
		"/containers/web/json":     `{"Name":"/web","State":{"Running":true,"Pid":1234}}`,
		"/containers/stopped/json": `{"Name":"/stopped","State":{"Running":false,"Pid":0}}`,
		"/containers/cafe/json":    `{"Id":"cafe01","Name":"/other","State":{"Running":true,"Pid":5}}`,
		"/containers/broken/json":  `{"State":`,
		"/containers/huge/json":    `{"Name":"/huge","State":{"Running":true,"Pid":1,"x":"` + strings.Repeat("x", maxAnswer) + `"}}`,
	})
	podman := service(t, map[string]string{
		"/containers/pod/json":     `{"Name":"/pod","State":{"Running":true,"Pid":99}}`,
		"/containers/stopped/json": `{"Name":"/stopped","State":{"Running":true,"Pid":7}}`,
	})
	sockets := []string{docker, filepath.Join(t.TempDir(), "absent"), podman}
	for name, want := range map[string]int{"web": 1234, "pod": 99} {
		if pid, err := Process(t.Context(), name, sockets); pid != want || err != nil {
			t.Errorf("%s: process %d, %v; want %d", name, pid, err, want)
		}
	}
	for _, name := range []string{"stopped", "nobody", "cafe"} {
		if pid, err := Process(t.Context(), name, sockets); pid != 0 || !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: process %d, error %v; want %v", name, pid, err, ErrNotRunning)
		}
	}
	for _, name := range []string{"broken", "huge"} {
		if pid, err := Process(t.Context(), name, []string{docker}); pid != 0 || err == nil {
			t.Errorf("%s: process %d, error %v", name, pid, err)
		}
	}
	if _, err := Process(t.Context(), "broken", []string{docker, podman}); err == nil || !strings.Contains(err.Error(), docker) {
		t.Errorf("the second service's answer hides the first one's fault: %v", err)
	}
	if _, err := Process(t.Context(), "web", []string{"/nowhere"}); !errors.Is(err, ErrNoService) {
		t.Errorf("error %v, want %v", err, ErrNoService)
	}
}
