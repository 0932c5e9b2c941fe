package yamlfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

type inner struct {
	Position
	Name  string   `yaml:"name"`
	Words []string `yaml:"words"`
}

type outer struct {
	List  []inner `yaml:"list"`
	On    bool    `yaml:"on"`
	Level level   `yaml:"level"`
}

type level int

func (l *level) UnmarshalYAML(n *yaml.Node) error {
	if n.Value != "high" {
		return PositionOf(n).Errorf("%q: allowed is high", n.Value)
	}
	*l = 3
	return nil
}

func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       outer
		faults     string
	}{
		{"lists of one need no brackets", "list: {name: a, words: b}\non: true\nlevel: high", outer{[]inner{{Position{1, 7}, "a", []string{"b"}}}, true, 3}, ""},
		{"a number is a text where a text belongs", "list: [{name: 7}]", outer{List: []inner{{Position: Position{1, 8}, Name: "7"}}}, ""},
		{"an unknown key is named with the near one", "list:\n- nmae: a", outer{}, `f:2:3: list[0]: unknown key "nmae": allowed are name, words; near is name`},
		{"every fault is listed", "lst: 1\non: maybe\nlevel: low", outer{}, "f:1:1: unknown key \"lst\": allowed are list, on, level; near is list\nf:2:5: on: \"maybe\": allowed are true and false\nf:3:8: level: \"low\": allowed is high"},
		{"a key is given once", "on: true\non: false", outer{}, `f:2:1: key "on" is given twice`},
		{"a mapping is no text", "list: {name: {a: b}}", outer{}, "f:1:14: list.name: a mapping: allowed is a text"},
		{"nothing is no text", "list: {name: }", outer{}, "f:1:14: list.name: no value: allowed is a text"},
		{"a text is no mapping", "hello", outer{}, `f:1:1: "hello": allowed are the keys list, on, level`},
		{"aliases are refused", "list: [&a {name: x}, *a]", outer{}, "f:1:22: list[1]: alias *a: allowed are values that are written out"},
		{"a second document is refused", "on: true\n---\non: true", outer{}, "f: a second YAML document: only one is allowed"},
		{"an empty file is refused", "# nothing\n", outer{}, "f: the file is empty"},
		{"a fault of YAML has its line", "a:\n\t- b", outer{}, "f:2:1: found character that cannot start any token"},
		{"a long file is refused", strings.Repeat("#", MaxSize+1), outer{}, fmt.Sprintf("f: the file is too long: allowed are %d bytes", MaxSize)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got outer
			err := Parse("f", []byte(tt.text), &got)
			if err == nil {
				err = Faults{}
			}
			if err.Error() != tt.faults {
				t.Errorf("faults\n%v\nwant\n%s", err, tt.faults)
			}
			if d := cmp.Diff(tt.want, got); tt.faults == "" && d != "" {
				t.Error(d)
			}
		})
	}
	if err := Read("nowhere", &outer{}); err == nil {
		t.Error("a file that is not there is read")
	}
}

func TestAFileIsBoundedAndRegular(t *testing.T) {
	path := filepath.Join(t.TempDir(), "long.yaml")
	if err := os.WriteFile(path, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path: "the file is too long", filepath.Dir(path): "neither a regular file nor a link to one"} {
		if err := Read(file, &outer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
