package stage

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
)

// TestMain is a process that a test has started, and says how important it is to the scheduler.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "-role" {
		os.Exit(m.Run())
	}
	importance, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err == nil {
		err = Tell(strconv.Itoa(importance))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Who yields the processors is less important than who does not.
func TestStartYielding(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how important a process is says each system in its own way")
	}
	said := map[bool]int{}
	for yields, start := range map[bool]func(context.Context, string, ...string) (*Process, error){false: Start, true: StartYielding} {
		p, err := start(t.Context(), "any")
		if err != nil {
			t.Fatal(err)
		}
		if said[yields], err = strconv.Atoi(p.Said); err != nil {
			t.Error(err)
		}
		if _, err := p.End(); err != nil {
			t.Error(err)
		}
	}
	if said[true] >= said[false] {
		t.Errorf("who yields is as important as who does not: %v", said)
	}
}
