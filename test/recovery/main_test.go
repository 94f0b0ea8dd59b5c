package recovery_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// TestMain is the main function of the tests and, in a process that they start, of a plugin.
func TestMain(m *testing.M) {
	if selfID := os.Getenv(processVariable); selfID != "" {
		if err := processMain(selfID); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	hosttest.Main(m)
}
