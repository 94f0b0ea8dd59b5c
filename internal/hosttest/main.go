package hosttest

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and ends the process. The run fails when a
// goroutine of this module, or a descriptor, outlives the tests.
func Main(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if left := leftover(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
			code = 1
		}
		if left := leftoverDescriptors(before); left != "" {
			fmt.Fprintf(os.Stderr, "descriptors outlive the tests:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leftover waits for the goroutines of this module to end and returns the stacks
// of those that do not.
func leftover() string {
	var left string
	for range 1_000 {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var stacks []string
		for _, stack := range bytes.Split(buf, []byte("\n\n"))[1:] {
			if s := string(stack); strings.Contains(s, "masegraye/connect-plugin-go") && !strings.Contains(s, "TestMain") {
				stacks = append(stacks, s)
			}
		}
		if left = strings.Join(stacks, "\n\n"); left == "" {
			return ""
		}
		time.Sleep(20 * time.Millisecond) // goroutines that are about to end
	}
	return left
}

// descriptors returns what the open descriptors of this process refer to, as far as
// the system tells: sockets and files, by number.
func descriptors() map[string]string {
	open := map[string]string{}
	entries, _ := os.ReadDir("/proc/self/fd") // there is none but on Linux
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:") && !strings.HasSuffix(target, "/fd") {
			open[e.Name()] = target
		}
	}
	return open
}

// leftoverDescriptors waits for descriptors that were not open before to close, and
// returns those that do not.
func leftoverDescriptors(before map[string]string) string {
	var left []string
	for range 1_000 {
		left = nil
		for number, target := range descriptors() {
			if before[number] != target {
				left = append(left, number+" "+target)
			}
		}
		if len(left) == 0 {
			return ""
		}
		runtime.GC()                      // net keeps pipes for copying until then
		time.Sleep(20 * time.Millisecond) // connections that are about to end
	}
	return strings.Join(left, "\n")
}
