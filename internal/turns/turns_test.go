package turns_test

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// However many wait, each gets a turn as long as others do; who has one and does nothing with it
// keeps the others waiting no longer than it must.
func TestAudit_USE42_HandshakesTakeTurnsHoweverMany(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		waiting int
		compute time.Duration // of each, in its turn
		want    int           // that get one
	}{
		"many that compute for long in all": {50, turns.Longest / 2, 50},
		"one that asks somebody else":       {3, time.Hour, 1},
		"one that asks, before thousands":   {5000, 24 * time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := turns.New(1)
				var got, passed atomic.Int64
				began := time.Now()
				for range tt.waiting {
					go func() {
						if all.Await(t.Context()) {
							got.Add(1)
							time.Sleep(tt.compute)
							all.Give()
							return
						}
						passed.Add(1)
						if waited := time.Since(began); waited > 2*turns.Longest+time.Duration(tt.waiting)*time.Millisecond {
							t.Errorf("went without a turn after %v", waited)
						}
					}()
				}
				time.Sleep(25 * time.Hour)
				if int(got.Load()) != tt.want || int(got.Load()+passed.Load()) != tt.waiting {
					t.Errorf("%d got a turn and %d went without, of %d", got.Load(), passed.Load(), tt.waiting)
				}
			})
		})
	}
}

// Where a process is so slow that a turn lasts for longer than anybody ought to wait, one goes on without in that time,
// and not all who wait: that would make it slower.
func TestAudit_USE42_OneAtATimeGoesWithoutATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := turns.New(1)
		var mu sync.Mutex
		var without []time.Duration
		var done sync.WaitGroup
		began := time.Now()
		for range 1000 {
			done.Go(func() {
				if all.Await(t.Context()) {
					time.Sleep(turns.Longest + turns.Longest/4)
					all.Give()
					return
				}
				mu.Lock()
				defer mu.Unlock()
				without = append(without, time.Since(began))
			})
		}
		done.Wait()
		// In each turn one, after Longest: the next one would be due half of that later.
		if most := time.Since(began) / turns.Longest; len(without) == 0 || len(without) > int(most) {
			t.Errorf("%d went without a turn in %v", len(without), time.Since(began))
		}
		slices.Sort(without)
		if len(slices.Compact(without)) < len(without) {
			t.Errorf("several went without a turn at one moment: %v", without)
		}
	})
}

// Who waits for a turn goes on when it is not worth it any more.
func TestAwait_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := turns.New(1)
		if !all.Await(t.Context()) {
			t.Fatal("the first waits")
		}
		ended, end := context.WithCancel(t.Context())
		end()
		began := time.Now()
		for range 3 {
			if all.Await(ended) || time.Since(began) > 0 {
				t.Errorf("waited for %v", time.Since(began))
			}
		}
		all.Give()
		if !all.Await(t.Context()) {
			t.Error("no turn is left")
		}
	})
}

// A client in its TLS handshake has a turn while it computes, and none while it waits for its peer; handshakes that
// go on wait for none that begins, and after it nothing waits.
func TestAudit_USE42_AClientHasATurnWhileItComputes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		process := turns.NewProcess(1)
		here, there := net.Pipe()
		began := time.Now()
		c := process.Begin(t.Context(), here)
		if first := process.Of(0); first.Await(t.Context()) || time.Since(began) != turns.Longest {
			t.Error("another begins while one computes")
		}
		if next := process.Of(1); !next.Await(t.Context()) {
			t.Error("one that goes on waits for one that begins")
		} else {
			next.Give()
		}
		go func() { _, _ = there.Write([]byte{1}) }()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		take(t, process.Of(0), true)
		take(t, process.Of(1), false)
		c.Over()
		take(t, process.Of(1), true)
		go func() { _, _ = there.Write([]byte{2}) }()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		take(t, process.Of(1), true)
	})
}

// Where nobody said how many there may be, nobody waits.
func TestProcess_NilHasNobodyWait(t *testing.T) {
	t.Parallel()
	var none *turns.Process
	here, there := net.Pipe()
	c := none.Begin(t.Context(), here)
	go func() { _ = tls.Client(there, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()) }()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	c.Over()
	_ = c.Close()
}

// take expects that there is a turn, or none.
func take(t *testing.T, of *turns.Turns, want bool) {
	t.Helper()
	got := of.Await(t.Context())
	if got != want {
		t.Errorf("there is a turn: %t, want %t", got, want)
	}
	if got {
		of.Give()
	}
}
