//go:build linux || darwin

package procgroup

import (
	"os"
	"syscall"
)

// startGuard starts the guard in a session of its own: what ends this process from outside,
// a terminal or a signal to its group, does not reach the guard.
func startGuard(files []*os.File) (*os.Process, error) {
	//nolint:wrapcheck // the caller wraps it
	return os.StartProcess(guardShell, []string{guardShell, "-c", guardScript}, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}
