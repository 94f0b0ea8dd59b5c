package edge

import (
	"syscall"
	"unsafe"
)

// take is write(2) of a descriptor that waits for nobody. The scheduler is not told: a call that is
// over in microseconds need not leave its processor to others, and where thousands follow one another
// the scheduler would look for one that does not come back every 20 us.
func take(fd int, p []byte) (int, error) {
	at := unsafe.Pointer(unsafe.SliceData(p)) //nolint:gosec // write takes a pointer
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(at), uintptr(len(p)))
	if errno != 0 {
		return 0, errno //nolint:wrapcheck // the caller does
	}
	return int(n), nil
}
