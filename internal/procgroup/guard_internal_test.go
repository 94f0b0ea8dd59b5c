package procgroup

import "testing"

// The guard is there before a process is: one that this process starts and does not survive would have started others.
func TestGuardIsThereFirst(t *testing.T) {
	t.Parallel()
	s := &Starter{Guard: &Guard{}}
	t.Cleanup(s.Guard.Close)
	if _, err := s.Start(&Config{Path: "/nowhere/at/all"}); err == nil {
		t.Fatal("started")
	}
	s.Guard.mu.Lock()
	defer s.Guard.mu.Unlock()
	if s.Guard.proc == nil && s.Guard.err == nil {
		t.Error("the guard starts after the process")
	}
}
