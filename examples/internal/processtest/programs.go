//go:build unix

// Package processtest runs the programs of an example in a test. It is for tests only.
package processtest

import (
	"context"
	"maps"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/examples/internal/process"
)

const (
	examples = "github.com/masegraye/connect-plugin-go/examples/"
	serving  = "host is serving addr="
	wait     = time.Minute
)

// Programs are built programs of the examples and a directory in which they run.
type Programs struct {
	t   *testing.T
	Dir string
}

// Build builds programs, each named by its directory below examples, with one command: each command
// reads anew what all of them are made of. No two may have the same last name.
func Build(t *testing.T, programs ...string) *Programs {
	t.Helper()

	p := &Programs{t: t, Dir: t.TempDir()}
	packages := make(map[string]string)

	for _, program := range programs {
		if other, taken := packages[p.Path(program)]; taken {
			t.Fatalf("%s and %s are the same file", other, program)
		}

		packages[p.Path(program)] = examples + program
	}

	if err := process.Build(t.Context(), filepath.Join(p.Dir, "bin"), slices.Collect(maps.Values(packages))...); err != nil {
		t.Fatal(err)
	}

	return p
}

// Start starts a program, waits for a line that contains a text, and stops the program at
// the end of the test, which fails if that does not end well. It returns the line.
func (p *Programs) Start(program, says string, args ...string) (*process.Process, string) {
	p.t.Helper()

	started, err := process.Start(p.Dir, p.Path(program), args...)
	if err != nil {
		p.t.Fatal(err)
	}

	p.t.Cleanup(func() {
		if err := started.Stop(); err != nil {
			p.t.Error(err)
		}
	})

	ctx, cancel := context.WithTimeout(p.t.Context(), wait)
	defer cancel()

	line, err := started.Await(ctx, says)
	if err != nil {
		p.t.Fatal(err)
	}

	return started, line
}

// StartHost starts a host on a free port and returns it and its URL.
func (p *Programs) StartHost(program string) (*process.Process, string) {
	p.t.Helper()

	host, line := p.Start(program, serving, "-addr", "127.0.0.1:0")
	_, addr, _ := strings.Cut(line, serving)

	return host, "https://" + addr
}

// Run runs a program to its end and returns what it wrote to standard output, and whether
// it ended with exit code 0.
func (p *Programs) Run(program string, args ...string) (string, bool) {
	p.t.Helper()

	var stdout, stderr strings.Builder

	cmd := exec.CommandContext(p.t.Context(), p.Path(program), args...) //nolint:gosec // a program that was built here
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, &stdout, &stderr

	err := cmd.Run()
	if stderr.Len() > 0 {
		p.t.Logf("%s:\n%s", program, stderr.String())
	}

	return strings.TrimSpace(stdout.String()), err == nil
}

// Path returns where a program is.
func (p *Programs) Path(program string) string {
	return filepath.Join(p.Dir, "bin", path.Base(program))
}
