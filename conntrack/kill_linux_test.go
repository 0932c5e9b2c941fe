package conntrack

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack/slab"
)

// killedEnv makes the test's own program one that is killed while it works on an image, which is its descriptor 3.
const killedEnv = "NSGD_TEST_KILLED"

// kept are images in one slab, which this process keeps.
type kept struct{ slabs *slab.Slabs }

func (k kept) Last() ([]byte, error)         { return k.slabs.Find("flows") }
func (k kept) Make(size int) ([]byte, error) { return k.slabs.Make("flows", size) }
func (k kept) Commit() error                 { return nil }

func killOptions(k kept) Options {
	return Options{Max: 2048, Zones: 8, Workers: 4, Seed: [2]uint64{5, 6}, Images: k}
}

// TestMain runs what is killed.
func TestMain(m *testing.M) {
	if os.Getenv(killedEnv) != "" {
		workUntilKilled()
	}
	os.Exit(m.Run())
}

func workUntilKilled() {
	table, err := New(killOptions(kept{slab.New(map[string]*os.File{"flows": os.NewFile(3, "flows")}, nil)}))
	if err != nil || table.Adoption().Refused != nil {
		panic(err)
	}
	var clock atomic.Uint32
	var passed, octets atomic.Uint64
	for i := range 4 {
		go func() {
			for seed := uint64(0); ; seed++ {
				hammer(&testing.T{}, table.Worker(i), rand.New(rand.NewPCG(seed, uint64(i))), 1<<14, &clock, &passed, &octets)
			}
		}()
	}
	for table.live.Load() == 0 { // a loaded machine lets no worker run for a while
		runtime.Gosched()
	}
	os.Stdout.WriteString("working\n")
	for {
		table.Expire(Tick(clock.Load()), 1<<12)
	}
}

func TestAProcessThatIsKilledLeavesWholeFlows(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	k := kept{slab.New(nil, nil)}
	if _, err := New(killOptions(k)); err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		c := exec.Command("/proc/self/exe")
		c.Env, c.ExtraFiles = append(os.Environ(), killedEnv+"=1"), []*os.File{k.slabs.Files()["flows"]}
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond) // at any instruction
		c.Process.Kill()
		c.Wait()
		table, err := New(killOptions(k))
		if err != nil {
			t.Fatal(err)
		}
		a := table.Adoption()
		if a.Refused != nil || a.Flows == 0 || a.Lost[LostDamaged]+a.Lost[LostZone]+a.Lost[LostRoom] > 0 {
			t.Fatalf("round %d: %+v", round, a)
		}
		for range 4 {
			table.Expire(0, 0)
		}
		checkAdopted(t, table, int64(a.Flows))
	}
}

// checkAdopted compares index, counts and free records with the records.
func checkAdopted(t *testing.T, table *Table, live int64) {
	t.Helper()
	s := table.Stats()
	classes := int64(0)
	for _, n := range s.Live {
		classes += n
	}
	entries, want := int64(0), int64(0)
	for i := range table.index.heads {
		for e := ref(table.index.heads[i].Load()); e != 0; entries++ {
			if entries > 2*int64(len(table.records)) {
				t.Fatal("a chain has no end")
			}
			e = ref(table.records[e.flow()].links[e.direction()].Load())
		}
	}
	for f := range Flow(table.used.Load()) {
		if !status(table.records[f].status.Load()).live() {
			continue
		}
		original, reply := table.keys(f)
		if want += 2; original == reply {
			want--
		}
		for d, k := range []Key{original, reply} {
			if got, _, _, ok := table.find(&k, table.secrets.hash(&k)); !ok || got != f {
				t.Fatalf("key %d of flow %d, %v, leads to %d, %t", d, f, k, got, ok)
			}
		}
	}
	free := int64(0)
	for n := uint32(table.free.Load()); n != 0; free++ {
		n = table.records[n-1].next.Load()
	}
	if s.Flows != live || classes != live || entries != want || free != int64(table.used.Load())-live || table.waiting.Load() != 0 {
		t.Fatalf("%d live, %d in the index of %d, %d free of %d used, %d wait: %+v", live, entries, want, free, table.used.Load(), table.waiting.Load(), s)
	}
}
