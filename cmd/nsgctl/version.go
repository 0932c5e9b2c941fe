package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// build is the JSON of version: what this nsgctl is. The daemon's version is in its status.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`       // the version of Go that built it
	Platform string `json:"platform"` // such as linux/amd64
}

func init() { addVerb(newVersion) }

func newVersion(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of nsgctl; status shows the daemon's",
		Example: `  nsgctl version
  nsgctl version -o json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return show(c, g, build{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}, nil, func(w io.Writer, b build) error {
				_, err := fmt.Fprintf(w, "nsgctl %s (%s, %s)\n", b.Version, b.Go, b.Platform)
				return err
			})
		},
	}
}
