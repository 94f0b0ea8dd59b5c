package hosttest

import (
	"testing"
	"time"
)

// Moment is how long a test waits for what must not happen.
const Moment = 50 * time.Millisecond

// Wait is how long a test waits at most for what has to happen. It is far beyond
// what a machine needs that is busy with other work.
const Wait = time.Minute

// Arrival receives from a channel, in bounded time.
func Arrival[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(Wait):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// Eventually waits until cond holds and fails the test if it never does.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(Wait)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // polls a real host for a condition
	}
}
