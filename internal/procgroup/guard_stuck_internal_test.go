//go:build linux || darwin

package procgroup

import (
	"os"
	"testing"
	"time"
)

// A guard that is stuck ends before its input does: one that wakes in between would see that end, and kill every group.
func TestGuardThatIsStuckEndsBeforeItsInput(t *testing.T) {
	t.Parallel()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFiles(in)
	proc, err := startGuard([]*os.File{in, os.Stderr, os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	gone, input := make(chan struct{}), make(chan error, 1)
	g := &Guard{pipe: out, proc: proc, gone: gone}
	go func() {
		_, _ = proc.Wait()
		input <- out.SetWriteDeadline(time.Time{}) // of what is closed it is an error
		close(gone)
	}()
	g.mu.Lock()
	g.endLocked(true)
	g.mu.Unlock()
	if err := <-input; err != nil {
		t.Errorf("its input ended before it did: %v", err)
	}
	if err := out.SetWriteDeadline(time.Time{}); err == nil {
		t.Error("its input is still open")
	}
}
