//go:build linux || darwin

package procgroup

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// What waitid(2) is asked for; package syscall does not name it.
const (
	idPid    = 1 // P_PID
	stExited = 4 // WEXITED
)

func credential(c *Credential) *syscall.Credential {
	if c == nil {
		return nil
	}
	return &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups}
}

// awaitExit returns when the process has ended. It reports whether the process was left
// unreaped, so that its id is still its own.
func awaitExit(proc *os.Process) (state *os.ProcessState, unreaped bool) {
	// More than a siginfo_t has on any system.
	var info [32]uint64
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, idPid, uintptr(proc.Pid),
			uintptr(unsafe.Pointer(&info)), stExited|noReap, 0, 0) //nolint:gosec // the kernel fills it
		if !errors.Is(errno, syscall.EINTR) {
			return nil, errno == 0
		}
	}
}

// terminateGroup asks a group whose leader was not reaped yet to end, and the leader itself
// where that has joined another group, which any process may.
func terminateGroup(proc *os.Process) error {
	err := syscall.Kill(-proc.Pid, syscall.SIGTERM)
	if group, unknown := syscall.Getpgid(proc.Pid); unknown == nil && group != proc.Pid {
		err = proc.Signal(syscall.SIGTERM)
	}
	return err //nolint:wrapcheck // says it all
}

// killGroup kills such a group and its leader, wherever that is.
func killGroup(proc *os.Process) error {
	_ = syscall.Kill(-proc.Pid, syscall.SIGKILL) // an error says that nobody is left in it
	return proc.Kill()                           //nolint:wrapcheck // says it all
}
