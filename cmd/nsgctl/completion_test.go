package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// shellScripts complete the command line in "$@", whose last word has begun. Each prints a word a line.
var shellScripts = map[string]string{
	// The function is one of the package bash-completion, which not every machine has.
	"bash": `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
source <(nsgctl completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_KEY=9
__start_nsgctl
printf '%s\n' "${COMPREPLY[@]}"`,
	"fish": `
nsgctl completion fish | source
complete -C "$argv"`,
	// Zsh completes in a terminal alone. What its completion system would be told is printed.
	"zsh": `
compdef() { : }
_describe() { print -rl -- "${completions[@]}" }
source <(nsgctl completion zsh)
words=("$@"); CURRENT=$#
_nsgctl`,
}

func TestShellsComplete(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "nsgctl")); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, line string
		want       []string
	}{
		{"a verb", "nsgctl effec", []string{"effective", "effective-routes"}},
		{"a NIC of the policy's files", "nsgctl verify --policy policy --nic vm1", []string{"vm1-nic"}},
		{"an NSG", "nsgctl rules --policy policy --nsg NSG", []string{"NSG1", "NSG2"}},
		{"a subnet", "nsgctl tags show Internet --policy policy --subnet vnet1/Subnet2", []string{"vnet1/Subnet2"}},
	}
	for shell, script := range shellScripts {
		for _, tt := range tests {
			t.Run(shell+" completes "+tt.name, func(t *testing.T) {
				path, err := exec.LookPath(shell)
				if err != nil {
					t.Skipf("no %s here", shell)
				}
				c := exec.Command(path, append([]string{"-c", script}, shellArgs(shell, tt.line)...)...)
				c.Dir = dir
				c.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "TERM=dumb")
				var stderr strings.Builder
				c.Stderr = &stderr
				out, err := c.Output()
				if err != nil {
					t.Fatalf("%v\n%s", err, stderr.String())
				}
				var got []string
				for _, line := range strings.Split(string(out), "\n") {
					if word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word != "" {
						got = append(got, word[:strings.IndexAny(word+":", ":\t")]) // descriptions follow
					}
				}
				slices.Sort(got)
				if !slices.Equal(slices.Compact(got), tt.want) {
					t.Errorf("%s: got %q, want %q\n%s", tt.line, got, tt.want, stderr.String())
				}
			})
		}
	}
}

// shellArgs are the arguments behind a script: bash and zsh take $0 first.
func shellArgs(shell, line string) []string {
	if shell == "fish" {
		return []string{line}
	}
	return append([]string{shell}, strings.Fields(line)...)
}
