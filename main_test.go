package connectplugin_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run when a goroutine of this module outlives the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := leftover(); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines outlive the tests:\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// leftover waits for the goroutines of this module to end and returns the stacks
// of those that do not.
func leftover() string {
	var left string
	for range 100 {
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
