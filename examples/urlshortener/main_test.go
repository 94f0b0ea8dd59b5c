//go:build unix

package urlshortener_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
)

// bin is where the programs are.
var bin string

// TestMain builds the programs once.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	// Programs with the race detector wait for a second before they end.
	err := os.Setenv("GORACE", "atexit_sleep_ms=0")
	if err != nil {
		return 1
	}

	if bin, err = os.MkdirTemp("", "urlshortener-test-"); err == nil {
		defer os.RemoveAll(bin)

		err = stack.Build(context.Background(), bin)
	}

	if err != nil {
		fmt.Fprintln(os.Stderr, err)

		return 1
	}

	return m.Run()
}
