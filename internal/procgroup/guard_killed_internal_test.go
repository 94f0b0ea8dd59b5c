//go:build linux || darwin

package procgroup

import (
	"os"
	"testing"
	"time"
)

// A guard that something kills is there again, though no process starts or ends meanwhile, and guards what there is; one that
// is killed again and again comes back no more than once a second.
func TestGuardThatIsKilledComesBack(t *testing.T) {
	t.Parallel()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &Guard{}
	t.Cleanup(g.Close)
	p, err := (&Starter{Guard: g}).Start(&Config{Path: path, Args: []string{"process", "sleep"}, Output: func(Line) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		<-p.Done()
	})
	guard, _ := present(g)
	guard, first := killed(t, g, guard)
	_, second := killed(t, g, guard)
	if after := second.Sub(first); after < guardPause {
		t.Errorf("it was started again %s after the last time", after)
	}
	g.mu.Lock()
	_ = g.pipe.Close() // as if this process was killed
	g.mu.Unlock()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Error("what it has to guard outlives this process")
	}
}

// killed kills a guard, and returns the one that comes back, and when it was to start.
func killed(t *testing.T, g *Guard, guard *os.Process) (next *os.Process, begun time.Time) {
	t.Helper()
	if err := guard.Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // polls what the system does
		if next, begun = present(g); next != nil && next != guard {
			return next, begun
		}
		if time.Now().After(deadline) {
			t.Fatal("no guard came back")
		}
	}
}

// present returns the guard that there is, and when it was to start.
func present(g *Guard) (*os.Process, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.proc, g.begun
}

// A guard that is closed stays away, however it ended.
func TestGuardThatIsClosedStaysAway(t *testing.T) {
	t.Parallel()
	g := &Guard{}
	g.add("1073741824") // a group that there never is
	guard, _ := present(g)
	if guard == nil {
		t.Fatal("no guard", g.Err())
	}
	if err := guard.Kill(); err != nil {
		t.Fatal(err)
	}
	g.Close()
	g.revive()
	if guard, _ := present(g); guard != nil {
		t.Error("it came back")
	}
}
