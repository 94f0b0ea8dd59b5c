//go:build !linux && !darwin

package procgroup

import (
	"fmt"
	"os"
	"time"
)

// start starts a process. There are no process groups here: what the process starts is its
// own business.
func start(cfg *Config, files []*os.File, _ *cgroup) (*os.Process, error) {
	switch {
	case cfg.Executable != nil:
		return nil, fmt.Errorf("executing an open file: %w", ErrUnsupported)
	case len(cfg.Rlimits) > 0:
		return nil, fmt.Errorf("resource limits: %w", ErrUnsupported)
	case cfg.Credential != nil:
		return nil, fmt.Errorf("another user: %w", ErrUnsupported)
	}
	env := cfg.Env
	if env == nil {
		env = []string{}
	}
	//nolint:wrapcheck // Start wraps it
	return os.StartProcess(cfg.Path, append([]string{cfg.Path}, cfg.Args...), &os.ProcAttr{Dir: cfg.Dir, Env: env, Files: files})
}

func awaitExit(proc *os.Process) (state *os.ProcessState, unreaped bool) {
	state, _ = proc.Wait()
	return state, false
}

func terminateGroup(proc *os.Process) error { return proc.Kill() } //nolint:wrapcheck // there is no gentler way

func killGroup(proc *os.Process) error { return proc.Kill() } //nolint:wrapcheck // says it all

func reapGroup(int, time.Time) {}
