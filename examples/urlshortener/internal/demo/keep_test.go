//go:build unix

package demo //nolint:testpackage // the keeper is of the demo alone

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/stack"
)

// refused is a plugin that its host does not take until there is a file.
const refused = `#!/bin/sh
[ -e "$TMPDIR/readmitted" ] || { echo "storage: permission denied"; exit 1; }
trap 'exit 0' TERM
echo "service registered"
while :; do sleep 0.05; done
`

// What a host does not take is started again until it does, that is said once, and is no failure of the demo.
func TestKeeper(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "storage"), []byte(refused), 0o700); err != nil {
		t.Fatal(err)
	}

	var said []string

	k := keeper{stack: &stack.Stack{Dir: dir, Bin: dir}, away: map[string]string{}, sayf: func(format string, args ...any) {
		said = append(said, fmt.Sprintf(format, args...))
	}}
	rounds := func(until func() bool) {
		t.Helper()

		for end := time.Now().Add(time.Minute); !until(); time.Sleep(time.Millisecond) {
			if k.look(); time.Now().After(end) {
				t.Fatalf("it said %q", said)
			}
		}
	}

	if err := k.stack.StartAgain("storage"); err != nil {
		t.Fatal(err)
	}

	log := func() string {
		text, _ := os.ReadFile(k.stack.LogFile("storage"))

		return string(text)
	}

	rounds(func() bool { return strings.Count(log(), "permission denied") > 2 })

	if len(said) != 1 || !strings.Contains(said[0], "storage ended by itself (storage: permission denied)") {
		t.Errorf("it said %q", said)
	}

	if err := os.WriteFile(filepath.Join(dir, "readmitted"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	rounds(func() bool { return len(said) > 1 })

	if said[1] != "storage is there again" || !k.stack.Serves("storage") {
		t.Errorf("it said %q", said)
	}

	if err := os.Remove(filepath.Join(dir, "readmitted")); err != nil {
		t.Fatal(err)
	}

	if err := k.stack.StopOne("storage"); err != nil {
		t.Error(err)
	}

	if err := k.stack.StartAgain("storage"); err != nil {
		t.Fatal(err)
	}

	<-k.stack.Processes["storage"].Done()
	k.end()

	if err := k.stack.Stop(); err != nil || k.stack.Left() > 0 {
		t.Errorf("in the end: %v, and %d processes are left", err, k.stack.Left())
	}
}
