package control

import (
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// A stream may take long to end while something comes, or while its reader does not read.
func TestAStreamsEndIsWaitedForWhileSomethingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := false
		e := newEnding(func() { given = true })
		defer e.close()
		from, to := io.Pipe()
		e.from = from
		b := make([]byte, 1)
		e.ask()
		go func() {
			for range 4 {
				time.Sleep(goodbye - time.Second)
				to.Write(b)
			}
		}()
		for range 4 {
			e.Read(b)
		}
		time.Sleep(2 * goodbye) // the reader has other work
		synctest.Wait()
		if given {
			t.Error("a daemon that sends is given up")
		}
		go e.Read(b)
		time.Sleep(goodbye + time.Second)
		synctest.Wait()
		if !given {
			t.Error("a daemon that says nothing is waited for")
		}
		to.Close()
	})
}

func TestAStreamThatDoesNotEndIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var given time.Duration
		began := time.Now()
		e := newEnding(func() { given = time.Since(began) })
		defer e.close()
		time.Sleep(2 * goodbyes) // nobody has asked for the end
		synctest.Wait()
		if given != 0 {
			t.Errorf("given up after %v", given)
		}
		e.ask()
		e.waits(false)
		time.Sleep(2 * goodbyes)
		synctest.Wait()
		if given != 3*goodbyes {
			t.Errorf("given up after %v, want %v", given, 3*goodbyes)
		}
	})
}
