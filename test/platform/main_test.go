package platform_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain is the main function of the tests and, in a process that they start, of a plugin
// or a host. It fails the run when a goroutine of this module outlives the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			if err := role(context.Background(), os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	inheritedFiles = openFiles() + "\n"
	_ = os.Setenv(hostSecret, "of the host alone")
	code := m.Run()
	if left := leftover(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftover waits for the goroutines of this module to end and returns those that do not.
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

// wait bounds everything that a test waits for.
const wait = time.Minute

// hostSecret is an environment variable of the host.
const hostSecret = "PLATFORM_TEST_SECRET"

// inheritedFiles is what the tests had open when they began.
var inheritedFiles string
