//go:build unix

package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	runTimeout = 10 * time.Second
	ownerOnly  = 0o700
)

// Run runs a program to its end and returns what it wrote to its standard output.
// The error holds what it wrote to the other. When ctx ends, the program and its
// group are interrupted, and killed if that takes them longer than 10 s.
func Run(ctx context.Context, path string, args ...string) (string, error) {
	return run(ctx, nil, path, args...)
}

// Build builds programs, given by import path, into a directory: with the race
// detector where the caller has it. Whatever happens, nothing is written elsewhere
// but to Go's build cache.
func Build(ctx context.Context, bin string, programs ...string) error {
	if err := os.MkdirAll(bin, ownerOnly); err != nil {
		return fmt.Errorf("build: %w", err)
	}

	args := append([]string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin + string(filepath.Separator)}, raceFlags()...)
	_, err := run(ctx, append(os.Environ(), "GOTMPDIR="+bin), "go", append(args, programs...)...)

	return err
}

// run is Run with an environment; nil is this process's own.
func run(ctx context.Context, env []string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the caller's own programs
	cmd.Env = env
	cmd.SysProcAttr = attributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = runTimeout

	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}

	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(path), err)
	}

	return strings.TrimSuffix(string(out), "\n"), nil
}
