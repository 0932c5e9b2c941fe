// Package nft changes tables of nftables by the tool nft, and leaves alone the tables of others. Its functions work in the
// network namespace of the calling thread.
package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// patience bounds a run of nft, which takes milliseconds.
const patience = 10 * time.Second

// ErrTheirs is the error of a table of nsgd's name that somebody else made: it is neither replaced nor removed.
var ErrTheirs = errors.New("of nft is somebody else's, and nsgd needs the name: give that table another one")

// Run runs commands, all of them or none. The error is exec.ErrNotFound without nft.
func Run(commands string, options ...string) (printed string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, "nft", append(options, "-f", "-")...)
	command.Stdin = strings.NewReader(commands)
	var out, fault bytes.Buffer
	command.Stdout, command.Stderr = &out, &fault
	err = command.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: install nftables", err)
	}
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(fault.String()), "\n")
		return "", fmt.Errorf("nft: %w: %s", err, first)
	}
	return out.String(), nil
}

// Tables are those of the names, such as "inet nsgd", that are there, as nft lists them, without counters. A table is nsgd's if
// it has the text mark; the error is ErrTheirs, beside nsgd's own ones, where another one has a name.
func Tables(mark string, names ...string) (list map[string]string, err error) {
	list = map[string]string{}
	printed, err := Run("list tables")
	if err != nil {
		return list, err
	}
	var theirs error
	for _, name := range names {
		if !strings.Contains(printed, "table "+name+"\n") {
			continue
		}
		text, err := Run("list table "+name, "-s")
		if err != nil {
			return list, err
		}
		if !strings.Contains(text, mark) {
			theirs = errors.Join(theirs, fmt.Errorf("table %s %w", name, ErrTheirs))
			continue
		}
		list[name] = text
	}
	return list, theirs
}

// Remove removes nsgd's tables of the names. Without nft nobody has made any. there says that there was one.
func Remove(mark string, names ...string) (there bool, err error) {
	list, err := Tables(mark, names...)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return false, nil
	case errors.Is(err, ErrTheirs):
		err = nil
	}
	commands := ""
	for name := range list {
		commands += "delete table " + name + "\n"
	}
	if commands != "" {
		_, fault := Run(commands)
		err = errors.Join(err, fault)
	}
	return commands != "", err
}
