package platform_test

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// running returns the processes that have a word among their arguments and are no zombies.
func running(t testing.TB, word string) []int {
	t.Helper()
	var pids []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Skip("this system has no /proc")
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if slices.ContainsFunc(bytes.Split(args, []byte{0}), func(a []byte) bool { return strings.Contains(string(a), word) }) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// allGone waits until no process has a word among its arguments.
func allGone(t testing.TB, word string) {
	t.Helper()
	for deadline := time.Now().Add(wait); ; {
		left := running(t, word)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v are still there", left)
		}
		time.Sleep(2 * time.Millisecond) // polls the system's table of processes
	}
}
