package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// documentPatience bounds a block, daemons and what they wait for included.
const documentPatience = 2 * patience

// notRun says why blocks of a kind are not run. The kind is the word after sh in the fence.
var notRun = map[string]string{
	"azure":      "needs a subscription, or a tool of Azure's",
	"terraform":  "needs Terraform, its providers and a project",
	"install":    "changes the machine outside the checkout",
	"qemu":       "starts a virtual machine; TestVirtualMachines does so",
	"terminal":   "waits for keys",
	"etcd":       "needs etcd with TLS and users; TestRolesOfEtcdSuffice runs the block of roles",
	"prometheus": "needs Prometheus; make test runs scripts/promcheck in a part of its own",
	"make":       "builds, or checks everything: its targets and the names of tests must exist",
	"go":         "builds tests, or takes long: the names of tests must exist",
}

// TestDocumentsRunAsWritten runs the sh blocks of every document, in order, each document in
// a folder of its own that looks like the checkout after `make build`. A block of the kind
// "docker" needs Docker, and the document is skipped where it can't run. One of the kind "up" starts the daemon, which
// is stopped at the next one, at the end of the document, and after a block of the kind "down", which ends it itself.
func TestDocumentsRunAsWritten(t *testing.T) {
	needWorld(t)
	ran := 0
	var left []string
	for _, file := range documents(t) {
		t.Run(file, func(t *testing.T) {
			s := &session{t: t, dir: scratch(t)}
			defer s.end()
			for _, b := range readBlocks(t, file) {
				why, named := notRun[b.kind]
				switch {
				case b.language != "sh":
				case named:
					left = append(left, fmt.Sprintf("%v (%s: %s): %s", b, b.kind, why, strings.Join(b.commands(), "; ")))
					checkNames(t, b)
				case b.kind == "up":
					s.up(b)
					ran++
				case b.kind == "down":
					s.run(b)
					s.end()
					ran++
				case b.kind == "docker" && !s.docker:
					s.docker = true
					startDocker(t, "/proc/self/ns/net")
					fallthrough
				case b.kind == "" || b.kind == "docker":
					s.run(b)
					ran++
				default:
					t.Errorf("%v: no blocks are of the kind %q", b, b.kind)
				}
			}
		})
	}
	t.Logf("%d blocks ran, %d did not:\n%s", ran, len(left), strings.Join(left, "\n"))
}

// scratch makes a folder with links to what is at the top of the checkout, and to the programs.
// What commands write stays in it.
func scratch(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range entries {
		if name := e.Name(); name != "bin" && name[0] != '.' {
			link(filepath.Join(root, name), name)
		}
	}
	link(os.Getenv(binariesEnv), "bin")
	return dir
}

// A session runs the blocks of one document.
type session struct {
	t      *testing.T
	dir    string
	daemon *daemon
	docker bool  // it runs
	groups []int // process groups of blocks, for what they left in the background
}

// up starts the daemon that the block runs in the foreground, and waits until it is ready. The
// recipe of a make target counts from its last line, since the programs are built already.
func (s *session) up(b block) {
	s.t.Helper()
	s.end()
	commands := b.commands()
	command := commands[len(commands)-1]
	if target, ok := strings.CutPrefix(command, "make "); ok {
		recipe := makeRecipe(s.t, b, target)
		command = recipe[len(recipe)-1]
	}
	args, ok := strings.CutPrefix(command, "bin/nsgd ")
	if !ok {
		s.t.Fatalf("%v: %q does not start bin/nsgd", b, command)
	}
	stdout := newOutput()
	s.daemon = launchIn(s.t, s.dir, stdout, strings.Fields(args)...)
	if strings.Contains(args, "--config") {
		s.daemon.waitFor(s.daemon.stderr, "msg=ready")
	} else {
		s.daemon.waitFor(stdout, "stays up until Ctrl-C")
	}
}

// run runs a block and compares what it prints with the text block behind it.
func (s *session) run(b block) {
	s.t.Helper()
	// Files, not pipes: what a block leaves in the background would keep a pipe open.
	stdout, stderr := s.file("stdout"), s.file("stderr")
	defer stdout.Close()
	defer stderr.Close()
	cmd := exec.Command("bash", "-eu", "-o", "pipefail", "-c", b.script())
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.groups = append(s.groups, cmd.Process.Pid)
	if s.daemon != nil && refusedReload.MatchString(b.text) {
		s.daemon.expectErrors = true
	}
	late := time.AfterFunc(documentPatience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	err := cmd.Wait()
	printed := s.read(stdout)
	if err != nil {
		s.t.Fatalf("%v: %v\n%s\nprinted\n%s\n%s", b, err, b.text, printed, s.read(stderr))
	}
	if b.output != "" && !outputPattern(b.output).MatchString(printed) {
		s.t.Errorf("%v: the text behind it promises\n%s\nbut it printed\n%s", b, b.output, printed)
	}
}

func (s *session) file(name string) *os.File {
	s.t.Helper()
	f, err := os.CreateTemp(s.t.TempDir(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (s *session) read(f *os.File) string {
	s.t.Helper()
	text, err := os.ReadFile(f.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// end stops the daemon and all that blocks left in the background.
func (s *session) end() {
	for _, group := range s.groups {
		syscall.Kill(-group, syscall.SIGKILL) // most have ended
	}
	s.groups = nil
	if s.daemon != nil {
		s.daemon.stop(os.Interrupt)
		s.daemon = nil
	}
}

// makeRecipe returns the commands that a make target would run.
func makeRecipe(t *testing.T, b block, target string) []string {
	t.Helper()
	// Under make itself, its variables would add lines about folders.
	cmd := exec.Command("bash", "-c", "env -u MAKELEVEL -u MAKEFLAGS -u MFLAGS make --no-print-directory -n "+target)
	cmd.Dir = repository
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: make %s: %v: %s", b, target, err, &stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// refusedReload finds a reload that has to fail, which the daemon logs as an error.
var refusedReload = regexp.MustCompile(`(?m)^.* reload .*# exit code [1-9]`)

var (
	testName    = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)\w*)\(`)
	namePattern = regexp.MustCompile(`(?:-(?:test\.)?(run|bench|fuzz)[ =]|\b(BENCH|FUZZ)=)('[^']*'|\S+)`)
)

// checkNames checks that what a block of make or go names exists: targets, and tests.
func checkNames(t *testing.T, b block) {
	t.Helper()
	for _, command := range b.commands() {
		if target, ok := strings.CutPrefix(command, "make "); ok {
			makeRecipe(t, b, target)
		}
		for _, m := range namePattern.FindAllStringSubmatch(command, -1) {
			// Subtests are not looked at. Make needs $$ for a $.
			pattern, _, _ := strings.Cut(strings.ReplaceAll(strings.Trim(m[3], "'"), "$$", "$"), "/")
			if pattern == "." || pattern == "^$" {
				continue
			}
			wanted, err := regexp.Compile(pattern)
			if err != nil {
				t.Errorf("%v: %s: %v", b, command, err)
			} else if !slices.ContainsFunc(testNames(t), wanted.MatchString) {
				t.Errorf("%v: %s: no test is named so", b, command)
			}
		}
	}
}

// testNames lists the tests, benchmarks and fuzz targets of the repository.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testName.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
