//go:build unix && !linux

package edge

import "syscall"

// take is write(2) of a descriptor that waits for nobody.
func take(fd int, p []byte) (int, error) {
	n, err := syscall.Write(fd, p)
	return max(0, n), err //nolint:wrapcheck // the caller does
}
