package process

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds programs, given by import path, into a directory: with the race
// detector where the caller has it.
func Build(ctx context.Context, bin string, programs ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin + string(filepath.Separator)}, raceFlags()...)

	return Run(exec.CommandContext(ctx, "go", append(args, programs...)...)) //nolint:gosec // the caller's own programs
}

// Run runs a command to its end. The error holds what it said.
func Run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}

	return nil
}
