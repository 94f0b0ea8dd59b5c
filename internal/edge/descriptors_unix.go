//go:build unix

package edge

import (
	"errors"
	"slices"
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

// ofAMoment are the errors of accept(2) that say nothing of the listener: there was no memory, or the connection was gone, or
// forbidden, before it was accepted.
var ofAMoment = []syscall.Errno{
	syscall.ENOMEM, syscall.ENOBUFS, syscall.ECONNABORTED, syscall.EPROTO, syscall.EPERM,
	syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
}

// fleeting reports that an error is one of those.
func fleeting(err error) bool {
	said, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains(ofAMoment, said)
}
