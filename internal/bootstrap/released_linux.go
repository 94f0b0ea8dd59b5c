package bootstrap

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// pollErr is POLLERR of poll(2), which package syscall does not name: of a pipe it says to whoever
// writes that nobody reads it any more.
const pollErr = 0x8

// pollFD is struct pollfd.
type pollFD struct {
	fd              int32
	events, revents int16
}

// Released waits until nobody has the other end of a pipe to a plugin any more, and reports whether
// that came before the end of ctx. Writes to the pipe go on meanwhile.
func Released(ctx context.Context, pipe *os.File) bool {
	conn, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = pipe.SetReadDeadline(time.Unix(1, 0)) })()
	released := false
	err = conn.Read(func(fd uintptr) bool { // the runtime waits for an event of the pipe in between
		released = unread(fd)
		return released
	})
	return err == nil && released
}

// unread reports whether nobody has the other end.
func unread(fd uintptr) bool {
	asked := pollFD{fd: int32(fd)} //nolint:gosec // a descriptor
	var now syscall.Timespec
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL,
			uintptr(unsafe.Pointer(&asked)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0) //nolint:gosec // the kernel fills it
		if !errors.Is(errno, syscall.EINTR) {
			return errno == 0 && asked.revents&pollErr != 0
		}
	}
}
