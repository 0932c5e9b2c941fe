package privileged

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/nsgd/nsgd/tun/fdstore"
)

const (
	// argumentsVariable has the daemon's arguments, for the process that follows it.
	argumentsVariable = "NSGD_ARGUMENTS"
	// SuccessorVariable names the descriptor of the socket pair in a process that follows another one.
	SuccessorVariable = "NSGD_SUCCESSOR"
)

// Successor asks for the process that follows the daemon. Its descriptors are those with names, and an end of a socket
// pair.
type Successor struct {
	Descriptors
	Names []string
}

// Succeed starts the program that is installed now, with the arguments that the daemon was started with: a daemon without
// privileges could start none that has some.
func (s *server) Succeed(r *Successor, pid *int) error {
	var files []*os.File
	for _, fd := range r.list {
		files = append(files, os.NewFile(uintptr(fd), "for the successor"))
	}
	r.list = nil
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if len(files) != len(r.Names)+1 || s.arguments == nil {
		return fmt.Errorf("%d descriptors and %d names: one descriptor more is needed, and a daemon that has started this part", len(files), len(r.Names))
	}
	path, err := Installed()
	if err != nil {
		return err
	}
	c := SuccessorCommand(path, s.arguments, r.Names, files)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return err
	}
	*pid = c.Process.Pid
	return c.Process.Release()
}

// SuccessorCommand runs a program with descriptors by their names, and an end of a socket pair as the last one.
func SuccessorCommand(path string, arguments, names []string, files []*os.File) *exec.Cmd {
	const firstExtra = 3
	c := exec.Command(path, arguments...)
	c.ExtraFiles = files
	c.Env = append(fdstore.Environment(os.Environ(), names), fmt.Sprintf("%s=%d", SuccessorVariable, firstExtra+len(names)))
	return c
}

// Installed is the path of the program that is installed now: an upgrade has put another file there.
func Installed() (string, error) {
	path, err := os.Executable()
	return strings.TrimSuffix(path, " (deleted)"), err
}

// arguments are those of the daemon that has started this process.
func arguments() (list []string, err error) {
	text := os.Getenv(argumentsVariable)
	os.Unsetenv(argumentsVariable)
	if text == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, errors.Join(fmt.Errorf("%s=%q", argumentsVariable, text), err)
	}
	return list, nil
}
