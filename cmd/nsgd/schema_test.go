package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/schema/schematest"
)

const schema = "../../deploy/schema/nsgd.schema.json"

func TestTheSchemaHasEveryKeyAndNoOther(t *testing.T) {
	for _, problem := range schematest.Compare(schema, reflect.TypeFor[Config]()) {
		t.Error(problem)
	}
}

func TestTheSchemaTakesTheConfigurationsThatNsgdTakes(t *testing.T) {
	files := []string{filepath.Join("testdata", "full.yaml")}
	labs, err := filepath.Glob("../../deploy/lab/*.yaml")
	if err != nil || len(labs) == 0 {
		t.Fatalf("no labs: %v", err)
	}
	for _, file := range append(files, labs...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := schematest.Validate(schema, text); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestTheSchemaRefusesWhatNsgdRefuses(t *testing.T) {
	const valid = "policy: [p]\nattachments: [{internet: true, device: i0}]\n"
	tests := []struct{ name, text string }{
		{"an unknown key", valid + "polcy: p"},
		{"an unknown key in a list", strings.Replace(valid, "device", "devices", 1)},
		{"no policy", strings.Replace(valid, "[p]", "[]", 1)},
		{"a device of two kinds", strings.Replace(valid, "internet: true", "internet: true, subnet: s", 1)},
		{"a bare number as a duration", valid + "timeouts: {icmp: 30}"},
		{"a duration without a unit", valid + `timeouts: {icmp: "30"}`},
		{"too many workers", valid + "workers: 1000"},
		{"an offload that there is not", valid + "offload: on"},
		{"a size of another unit", valid + "flowLogs: [{version: nsg2, maxSize: 5GB}]"},
		{"an address without a prefix length", strings.Replace(valid, "device", "addresses: [10.0.0.1], device", 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := schematest.Validate(schema, []byte(tt.text)); err == nil {
				t.Error("the schema takes it")
			}
			if _, err := parseConfig("nsgd.yaml", []byte(tt.text)); err == nil {
				t.Error("nsgd takes it")
			}
		})
	}
	if err := schematest.Validate(schema, []byte(valid)); err != nil {
		t.Error(err)
	}
}
