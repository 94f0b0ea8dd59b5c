//go:build linux || darwin

package privdir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const lockMode = 0o600

// claim opens a file and locks it; whoever holds the lock already makes that an error. The
// lock ends with this process, however that ends.
func claim(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|os.O_RDWR|syscall.O_NOFOLLOW, lockMode) //nolint:gosec // a name of our own
	if err != nil {
		return nil, err //nolint:wrapcheck // Make does
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func lockFile(f *os.File) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	here, err := os.Stat(f.Name())
	if err != nil {
		return errTaken
	}
	if locked, err := f.Stat(); err != nil || !os.SameFile(here, locked) {
		return errTaken
	}
	return nil
}

// ours reports whether a file belongs to this process's user.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int64(stat.Uid) == int64(os.Geteuid())
}
