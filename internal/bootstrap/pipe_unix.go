//go:build unix

package bootstrap

import (
	"os"
	"syscall"
)

// InheritedPipe returns the pipe behind an inherited descriptor, nil where there is none.
func InheritedPipe(fd int) *os.File {
	var stat syscall.Stat_t
	if syscall.Fstat(fd, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nil
	}
	syscall.CloseOnExec(fd)
	if syscall.SetNonblock(fd, true) != nil { // so that reads end when it is closed
		return nil
	}
	return os.NewFile(uintptr(fd), "bootstrap")
}
