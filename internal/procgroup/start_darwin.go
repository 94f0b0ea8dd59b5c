package procgroup

import (
	"fmt"
	"os"
	"syscall"
)

func start(cfg *Config, files []*os.File, _ *cgroup) (*os.Process, error) {
	switch {
	case cfg.Executable != nil:
		return nil, fmt.Errorf("executing an open file: %w", ErrUnsupported)
	case len(cfg.Rlimits) > 0:
		return nil, fmt.Errorf("resource limits: %w", ErrUnsupported)
	}
	env := cfg.Env
	if env == nil {
		env = []string{}
	}
	return os.StartProcess(cfg.Path, append([]string{cfg.Path}, cfg.Args...), &os.ProcAttr{
		Dir: cfg.Dir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Credential: credential(cfg.Credential)},
	}) //nolint:wrapcheck // Start wraps it
}
