//go:build unix

package edge

import (
	"errors"
	"syscall"
)

// NoDescriptors reports that an error says that this process, or the system, has no descriptor left.
func NoDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// Descriptors returns how many descriptors this process may have, and whether the system says so.
func Descriptors() (most uint64, known bool) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // it is signed on some systems
}
