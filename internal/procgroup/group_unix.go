//go:build linux || darwin

package procgroup

import (
	"errors"
	"os"
	"syscall"
	"time"
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

// reapLook is the time between looks whether what was killed is gone.
const reapLook = 2 * time.Millisecond

// reapGroup reaps what is left of a group that was killed and whose leader was reaped, where it is this process's: the first one
// of a container gets all that has lost its parent, and what nobody reaps takes a number for ever.
func reapGroup(leader int, until time.Time) {
	for {
		pid, err := syscall.Wait4(-leader, nil, syscall.WNOHANG, nil)
		switch {
		case pid > 0, errors.Is(err, syscall.EINTR):
		case err != nil || time.Now().After(until): // there is none, as a rule
			return
		default:
			<-time.After(reapLook)
		}
	}
}
