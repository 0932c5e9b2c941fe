package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/intercept"
	"github.com/spf13/cobra"
)

func newDetach() *cobra.Command {
	return &cobra.Command{
		Use:   "detach",
		Short: "Open every interface before which a stopped daemon still stands, and remove its devices",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("detach: needs root, to change interfaces: try sudo")
			}
			return detach(c.OutOrStdout())
		},
	}
}

// detach needs no configuration: it looks into every network namespace.
func detach(w io.Writer) error {
	namespaces, err := tun.Namespaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, namespace := range namespaces {
		done, err := intercept.Detach(namespace)
		if err != nil && !errors.Is(err, tun.ErrNoNamespace) { // it ended meanwhile
			errs = append(errs, err)
		}
		where := ""
		if namespace != "" {
			where = " in namespace " + namespace
		}
		if len(done.Interfaces) > 0 {
			fmt.Fprintf(w, "open%s: %s\n", where, strings.Join(done.Interfaces, " "))
		}
		if len(done.Devices) > 0 {
			fmt.Fprintf(w, "removed%s: %s\n", where, strings.Join(done.Devices, " "))
		}
	}
	return errors.Join(errs...)
}
