// Command corpus reads the documents of a folder, each alone as `nsgctl validate` does, and prints what became of them:
// `make corpus DIR=...`. Documents are ARM templates, with NAME.parameters.json beside NAME.json, plans and states of
// Terraform, and exports.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.serviceTags, "service-tags", "", "Microsoft's service tag `file`")
	flag.DurationVar(&o.limit, "limit", 10*time.Second, "the time that one document may take")
	flag.Parse()
	if err := run(&o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "corpus:", err)
		os.Exit(1)
	}
}

// run reads the documents below a folder and prints the table of outcomes.
func run(o *options, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return errors.New("give one folder: make corpus DIR=FOLDER")
	}
	files, err := documents(args[0])
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there is no *.json file below %s", args[0])
	}
	outcomes := make([]*outcome, len(files))
	for i, file := range files {
		outcomes[i] = read(o, args[0], file)
	}
	if err := printOutcomes(os.Stdout, outcomes, true); err != nil {
		return err
	}
	printSums(os.Stdout, outcomes)
	return nil
}
