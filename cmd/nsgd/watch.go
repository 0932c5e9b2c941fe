package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/nsgd/nsgd/dataplane/filewatch"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// watchFiles reloads when the configuration or a file that it names has changed, until ctx ends. A refusal is logged by
// the service, and the next change is another try.
func (d *daemon) watchFiles(ctx context.Context) error {
	if !d.config.Watch {
		return nil
	}
	last := d.config
	w := filewatch.New(filewatch.Options{
		Since: d.read, Log: d.log,
		Files: func() (files, folders []string) {
			if c, err := loadConfig(d.path); err == nil {
				last = c
			}
			files, folders = last.files()
			return append(files, d.path), folders
		},
	})
	defer w.Close()
	w.Run(ctx, d.readChanged)
	return nil
}

// readChanged reads files that have changed. Those that are to be read later it has not taken.
func (d *daemon) readChanged() (taken bool) {
	if by := d.service.Reloads().ConfirmBy; by != nil {
		d.log.Warn("files have changed: they are read once the reload that waits for nsgctl confirm is confirmed or taken back", "at the latest", *by)
		return false
	}
	_, err := d.service.Reload(inspect.ReloadRequest{Cause: "watch"})
	return !errors.Is(err, inspect.ErrUpgrading) // it may fail, and this process go on
}

// files are those that a configuration names, and the folders in which more may appear.
func (c *Config) files() (files, folders []string) {
	files = arm.Files(c.Policy...)
	named := append([]string{c.ServiceTags, c.Templates.Runtime}, c.Policy...)
	for _, p := range c.Templates.Parameters {
		if !arm.IsAssignment(p) {
			named = append(named, p)
		}
	}
	for _, path := range named {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			folders = append(folders, path)
		}
		if pattern := strings.IndexAny(path, "*?["); pattern >= 0 {
			folders = append(folders, filepath.Dir(path[:pattern]+"x")) // and those below
		}
		if path != "" {
			files = append(files, path) // also one that is missing, or a folder
		}
	}
	return files, folders
}
