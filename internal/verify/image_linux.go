package verify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// noBlock keeps a named pipe from blocking whoever opens it.
const noBlock = syscall.O_NONBLOCK

// Flags of memfd_create(2) and seals of fcntl(2), which package syscall does not name.
const (
	memfdCloexec = 0x1
	memfdSealing = 0x2
	memfdExec    = 0x10

	addSeals = 1033 // F_ADD_SEALS
	allSeals = 0x1 | 0x2 | 0x4 | 0x8
)

// memfdCreate is the number of memfd_create(2), where it is not that of the newer ports.
var memfdCreate = map[string]uintptr{
	"386": 356, "amd64": 319, "arm": 385, "ppc64": 360, "ppc64le": 360, "s390x": 350, //nolint:mnd // numbers of the kernel
	"mips": 4354, "mipsle": 4354, "mips64": 5314, "mips64le": 5314, //nolint:mnd // numbers of the kernel
}

const memfdCreateGeneric = 279

// image is a sealed memory file.
type image struct{ file *os.File }

// newImage copies everything that r has into a memory file and seals it: its bytes and its
// length cannot change any more, whoever holds it.
func newImage(r io.Reader) (image, error) {
	// No other program may be started meanwhile: until it executes, it would hold the
	// memory file open for writing, which keeps it from being executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	writable, err := newMemory()
	if err != nil {
		return image{}, err
	}
	defer func() { _ = writable.Close() }()
	if _, err := io.Copy(writable, r); err != nil {
		return image{}, fmt.Errorf("read: %w", err)
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, writable.Fd(), addSeals, allSeals); errno != 0 {
		return image{}, fmt.Errorf("seal: %w", errno)
	}
	file, err := os.Open("/proc/self/fd/" + strconv.FormatUint(uint64(writable.Fd()), 10))
	if err != nil {
		return image{}, fmt.Errorf("open again for reading: %w", err)
	}
	_ = gather(file) // makes it quicker, and nothing else
	return image{file}, nil
}

func newMemory() (*os.File, error) {
	number, ok := memfdCreate[runtime.GOARCH]
	if !ok {
		number = memfdCreateGeneric
	}
	name := []byte("plugin\x00")
	fd, errno := uintptr(0), syscall.EINVAL
	for _, flags := range []uintptr{memfdCloexec | memfdSealing | memfdExec, memfdCloexec | memfdSealing} {
		if errno != syscall.EINVAL { // the first flags are those of Linux 6.3
			break
		}
		fd, _, errno = syscall.Syscall(number, uintptr(unsafe.Pointer(&name[0])), flags, 0) //nolint:gosec // the kernel reads it
	}
	if errno != 0 {
		return nil, fmt.Errorf("memory file: %w", errno)
	}
	return os.NewFile(fd, "plugin"), nil
}

// Executable returns the open file that is executed. It belongs to the binary.
func (b *Binary) Executable() *os.File { return b.image.file }

// Path returns where the program is executed from: empty, see Executable.
func (b *Binary) Path() string { return "" }

// Close gives the program's memory back as soon as nothing runs it any more. It may be
// called again.
func (b *Binary) Close() {
	if err := b.image.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return // nothing is left to do about it
	}
}

func executable(info os.FileInfo) bool { return info.Mode()&0o111 != 0 }
