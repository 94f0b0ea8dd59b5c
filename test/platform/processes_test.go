package platform_test

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
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

// playing returns those of the processes that play a role of this test.
func playing(t testing.TB, role, word string) []int {
	t.Helper()
	return slices.DeleteFunc(running(t, word), func(pid int) bool {
		args, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		words := bytes.Split(args, []byte{0})
		return len(words) < 2 || string(words[1]) != role
	})
}

// awaitProcess waits for a process that plays a role.
func awaitProcess(t testing.TB, role, word string) int {
	t.Helper()
	var pids []int
	hosttest.Eventually(t, "a "+role+" runs", func() bool {
		pids = playing(t, role, word)
		return len(pids) > 0
	})
	return pids[0]
}
