package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgd/privileged"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fabric"
	"github.com/nsgd/nsgd/tun/intercept"
	"github.com/spf13/cobra"
)

func newDetach() *cobra.Command {
	return &cobra.Command{
		Use:   "detach",
		Short: "Open every interface before which a stopped daemon still stands, and remove its devices",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return detach(c.OutOrStdout())
		},
	}
}

func newClose() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "close --config FILE",
		Short: "Close the interfaces of a configuration with closedAtBoot, those to come too, until nsgd run or nsgd detach",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{errors.New("close: --config is missing")}
			}
			return shut(path, c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&path, "config", "", "configuration file; its policy is not read")
	return c
}

// shut closes what can be closed, whatever fails elsewhere.
func shut(path string, w io.Writer) error {
	config, err := loadConfig(path)
	if err != nil {
		return err
	}
	namespaces := config.namespacesWithInterfaces()
	if !config.ClosedAtBoot || len(namespaces) == 0 {
		fmt.Fprintf(w, "nothing to close: %s has no closedAtBoot: true, or no attachment with interface, bridge or container\n", path)
		return nil
	}
	var errs []error
	for _, namespace := range namespaces {
		ports := privileged.Ports(config.ports(namespace, &policy.Set{}))
		if err := intercept.Shut(namespace, ports); err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range ports {
			fmt.Fprintf(w, "closed%s: %s\n", within(namespace), &ports[i])
		}
	}
	return errors.Join(errs...)
}

// within names a namespace in messages.
func within(namespace string) string {
	if namespace == "" {
		return ""
	}
	return " in namespace " + namespace
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
		where := within(namespace)
		if len(done.Interfaces) > 0 {
			fmt.Fprintf(w, "open%s: %s\n", where, strings.Join(done.Interfaces, " "))
		}
		if done.Tables {
			fmt.Fprintf(w, "open%s: interfaces that were closed before nsgd stood there\n", where)
		}
		if len(done.Devices) > 0 {
			fmt.Fprintf(w, "removed%s: %s\n", where, strings.Join(done.Devices, " "))
		}
		removed, err := fabric.Remove(namespace)
		if err != nil && !errors.Is(err, tun.ErrNoNamespace) {
			errs = append(errs, err)
		}
		if len(removed) > 0 {
			fmt.Fprintf(w, "removed%s: %s, which carried packets between hosts\n", where, strings.Join(removed, ", "))
		}
	}
	return errors.Join(errs...)
}
