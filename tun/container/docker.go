// Package container finds containers by name, through the API of Docker, which podman speaks too.
package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Sockets are those of the services that are asked, in this order.
var Sockets = []string{"/run/docker.sock", "/run/podman/podman.sock"}

const (
	patience  = 2 * time.Second // an answer takes a few milliseconds
	maxAnswer = 1 << 20
)

var (
	// ErrNoService: nobody knows of containers here.
	ErrNoService = errors.New("neither Docker nor podman answers")
	// ErrNotRunning: no container of that name runs.
	ErrNotRunning = errors.New("it does not run")
)

// Process is a process in a container that runs. It asks the first service that has a container of the name.
func Process(ctx context.Context, name string, sockets []string) (pid int, err error) {
	var faults []error
	for _, socket := range sockets {
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		pid, known, err := process(ctx, name, socket)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", socket, err))
		}
		if known {
			return pid, err
		}
	}
	if faults == nil {
		faults = append(faults, fmt.Errorf("%w at %s", ErrNoService, strings.Join(sockets, " and ")))
	}
	return 0, fmt.Errorf("container %q: %w", name, errors.Join(faults...))
}

// process asks one service. known tells that it has a container of the name.
func process(ctx context.Context, name, socket string) (pid int, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://containers/containers/"+url.PathEscape(name)+"/json", nil)
	if err != nil {
		return 0, false, err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, false, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return 0, false, fmt.Errorf("no such container: %w", ErrNotRunning)
	default:
		return 0, false, fmt.Errorf("it answers %s", response.Status)
	}
	var answer struct {
		ID    string
		Name  string
		State struct {
			Running bool
			Pid     int
		}
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return 0, false, fmt.Errorf("its answer: %w", err)
	}
	if answer.Name != "/"+name && answer.ID != name { // services also take the beginning of an id
		return 0, false, fmt.Errorf("no such container, but %s: %w", answer.Name, ErrNotRunning)
	}
	if !answer.State.Running || answer.State.Pid <= 0 {
		return 0, true, fmt.Errorf("container %q: %w", name, ErrNotRunning)
	}
	return answer.State.Pid, true, nil
}
