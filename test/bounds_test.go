package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// hotFunctions are the steps of a packet of a live flow, with the checks of an index that the compiler leaves in each, and
// why it does. All others have none.
var hotFunctions = []struct {
	file, function string
	checks         int
	why            string
}{
	{"dataplane/worker.go", "worker.prepare", 1, "once a group: attachments have numbers, and their lists grow by reloads"},
	{"dataplane/worker.go", "worker.carryGroup", 1, "once a group: attachments have numbers, and their lists grow by reloads"},
	{"dataplane/worker.go", "worker.read", 2, "the buffer is used up to where memory says, and a device says how much it has read"},
	{"dataplane/passage.go", "passage.enter", 0, ""},
	{"dataplane/passage.go", "passage.carry", 0, ""},
	{"dataplane/passage.go", "passage.leave", 1, "of a drop: reasons have numbers"},
	{"dataplane/passage.go", "passage.steps", 0, ""},
	{"dataplane/passage.go", "passage.finish", 0, ""},
	{"dataplane/passage.go", "passage.goOn", 0, ""},
	{"dataplane/passage.go", "passage.destination", 1, "the record is named by a number in memory"},
	{"dataplane/passage.go", "passage.follow", 3, "the record is named by a number in memory"},
	{"dataplane/passage.go", "passage.note", 1, "the record is named by a number in memory"},
	{"dataplane/passage.go", "passage.countSlots", 0, ""},
	{"dataplane/passage.go", "worker.countRules", 0, ""},
	{"dataplane/passage.go", "worker.endStreak", 0, ""},
	{"dataplane/write.go", "worker.write", 5, "attachments have numbers, and their lists grow by reloads"},
	{"dataplane/write.go", "worker.gather", 2, "attachments have numbers, and their lists grow by reloads; and so has the next train"},
	{"dataplane/write.go", "worker.takesTrains", 2, "attachments have numbers, and their lists grow by reloads"},
	{"dataplane/virtio/decode.go", "Decode", 1, "a frame is as long as its device says"},
	{"dataplane/packet/decode.go", "Decoder.Decode", 1, "the lengths are those that the header says"},
	{"dataplane/packet/decode.go", "Decoder.ipv4", 2, "gopacket holds addresses as slices"},
	{"dataplane/packet/decode.go", "Decoder.transport", 2, "of ICMPv6: the compiler does not keep what gopacket has checked"},
	{"dataplane/packet/decode.go", "Decoder.tcpHeader", 0, ""},
	{"dataplane/packet/decode.go", "Decoder.udpHeader", 0, ""},
	{"dataplane/packet/decode.go", "Packet.countSegments", 0, ""},
	{"dataplane/counter/counter.go", "Set.Add", 0, ""},
	{"dataplane/counter/counter.go", "Set.Receive", 1, "once a group: attachments have numbers, and their lists grow by reloads"},
	{"dataplane/counter/counter.go", "Set.Transmit", 1, "attachments have numbers, and their lists grow by reloads"},
	{"dataplane/counter/counter.go", "Set.pendingAttachment", 1, "attachments have numbers, and their lists grow by reloads"},
	{"dataplane/verdict/admit.go", "Admit", 0, ""},
	{"dataplane/verdict/admit.go", "Carried", 0, ""},
	{"dataplane/topology/admit.go", "Snapshot.Admit", 0, ""},
	{"dataplane/topology/admit.go", "sentBy", 0, ""},
	{"conntrack/key.go", "Key.Set", 0, ""},
	{"conntrack/key.go", "Key.Equal", 0, ""},
	{"conntrack/key.go", "secrets.hash", 0, ""},
	{"conntrack/key.go", "fold", 0, ""},
	{"conntrack/index.go", "Table.find", 3, "the index leads from number to number"},
	{"conntrack/record.go", "record.matches", 0, ""},
	{"conntrack/record.go", "record.see", 0, ""},
	{"conntrack/record.go", "record.count", 0, ""},
	{"conntrack/record.go", "Table.lifetime", 0, ""},
	{"conntrack/record.go", "Table.expiresIn", 0, ""},
	{"conntrack/tally.go", "tally.add", 0, ""},
	{"conntrack/window.go", "sides.pass", 0, ""},
	{"conntrack/window.go", "side.read", 0, ""},
	{"conntrack/window.go", "raise", 0, ""},
	{"conntrack/window.go", "grant", 0, ""},
	{"conntrack/worker.go", "Worker.LookupHash", 1, "the record is named by a number in memory"},
	{"conntrack/worker.go", "Worker.Lives", 1, "the record is named by a number in memory"},
	{"conntrack/worker.go", "Worker.Warm", 7, "the index leads from number to number, and a group has any number of keys behind another"},
	{"conntrack/worker.go", "Table.warm", 1, "the record is named by a number in memory"},
	{"conntrack/worker.go", "Worker.Asks", 0, ""},
	{"conntrack/worker.go", "Worker.Pass", 1, "the record is named by a number in memory"},
	{"conntrack/worker.go", "Worker.Advance", 2, "the record is named by a number in memory, and its windows by the same"},
	{"conntrack/worker.go", "Worker.Add", 1, "the record is named by a number in memory"},
}

// boundsCheck is a line of the compiler's -d=ssa/check_bce.
var boundsCheck = regexp.MustCompile(`(?m)^(?:github\.com/nsgd/nsgd/|\./)?(\S+\.go):(\d+):(\d+): Found Is(?:Slice)?InBounds$`)

// TestHotFunctionsCheckOnlyTheBoundsThatAreListed asks the compiler which bounds it checks. A check that is new costs each
// packet a comparison and the processor a branch: rewrite the code so that the compiler sees the bound, or list it with the reason.
func TestHotFunctionsCheckOnlyTheBoundsThatAreListed(t *testing.T) {
	packages := map[string]bool{}
	for _, h := range hotFunctions {
		packages["./"+filepath.ToSlash(filepath.Dir(h.file))] = true
	}
	args := []string{"build", "-pgo=off", "-trimpath", "-gcflags=-d=ssa/check_bce"}
	for name := range packages {
		args = append(args, name)
	}
	build := exec.Command("go", args...)
	build.Dir = ".."
	out, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	found := map[string]map[int]map[string]bool{} // by file and line: the columns
	for _, m := range boundsCheck.FindAllStringSubmatch(string(out), -1) {
		line, _ := strconv.Atoi(m[2])
		if found[m[1]] == nil {
			found[m[1]] = map[int]map[string]bool{}
		}
		if found[m[1]][line] == nil {
			found[m[1]][line] = map[string]bool{}
		}
		found[m[1]][line][m[3]] = true
	}
	if len(found) == 0 {
		t.Fatalf("the compiler reported no check at all: its output was\n%s", out)
	}
	for _, h := range hotFunctions {
		fileSet := token.NewFileSet()
		file, err := parser.ParseFile(fileSet, filepath.Join("..", h.file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		first, last := extent(fileSet, file, h.function)
		if first == 0 {
			t.Errorf("%s has no function %s", h.file, h.function)
			continue
		}
		checks, at := 0, []string{}
		for line := first; line <= last; line++ {
			for column := range found[h.file][line] {
				checks++
				at = append(at, strconv.Itoa(line)+":"+column)
			}
		}
		if checks != h.checks {
			t.Errorf("%s: %s checks %d bounds (%s), want %d: %s", h.file, h.function, checks, strings.Join(at, ", "), h.checks, h.why)
		}
	}
}

// extent are the lines of a function, named as "name" or "receiver.name"; 0: there is none.
func extent(fileSet *token.FileSet, file *ast.File, name string) (first, last int) {
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		full := f.Name.Name
		if f.Recv != nil {
			receiver := f.Recv.List[0].Type
			if star, ok := receiver.(*ast.StarExpr); ok {
				receiver = star.X
			}
			if id, ok := receiver.(*ast.Ident); ok {
				full = id.Name + "." + full
			}
		}
		if full == name {
			return fileSet.Position(f.Pos()).Line, fileSet.Position(f.End()).Line
		}
	}
	return 0, 0
}
