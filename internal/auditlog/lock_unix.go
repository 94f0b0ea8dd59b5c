//go:build linux || darwin

package auditlog

import (
	"errors"
	"os"
	"syscall"
)

// lock keeps other writers from a file until it is closed, however this process ends. A file system that
// knows no locks has none.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	return nil
}
