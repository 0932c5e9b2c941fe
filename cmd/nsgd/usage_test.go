package main

import (
	"bytes"
	"context"
	"testing"
)

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"done", []string{"--version"}, 0},
		{"a configuration that isn't there", []string{"check", "--config", "nowhere.yaml"}, 1},
		{"no command", nil, 2},
		{"an unknown command", []string{"walk"}, 2},
		{"an unknown flag", []string{"run", "--fast"}, 2},
		{"an argument too many", []string{"run", "now"}, 2},
		{"check without a configuration", []string{"check"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if got := execute(context.Background(), tt.args, &stdout, &stderr); got != tt.want {
				t.Errorf("exit code %d, want %d: %s", got, tt.want, &stderr)
			}
		})
	}
}
