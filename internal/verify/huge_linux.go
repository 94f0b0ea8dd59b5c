//go:build linux && (amd64 || arm64)

package verify

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

const (
	hugePage      = 2 << 20
	madvCollapse  = 25 // MADV_COLLAPSE of madvise(2), since Linux 6.1
	mapFixed      = 0x10
	anonymousFile = -1
)

// gather has the kernel gather the pages of a memory file into huge ones, where it can. Whoever
// executes the file maps a few huge pages in place of thousands, which begins sooner, and ends far
// sooner: most of the end of a process is giving back one page after the other. It changes no byte. An
// error says that the kernel cannot, or not now: the file is executed as well without.
func gather(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("huge pages: %w", err)
	}
	if info.Size() < hugePage {
		return nil
	}
	whole := int(info.Size()) / hugePage * hugePage
	return mapHuge(file, whole, func(begin uintptr) error {
		_, _, errno := syscall.Syscall(syscall.SYS_MADVISE, begin, uintptr(whole), madvCollapse)
		if errno != 0 {
			return fmt.Errorf("huge pages: %w", errno)
		}
		return nil
	})
}

// mapHuge maps the first bytes of a file for reading, at an address where huge pages can begin, as long
// as do takes.
func mapHuge(file *os.File, length int, do func(begin uintptr) error) error {
	room, err := syscall.Mmap(anonymousFile, 0, length+hugePage, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return fmt.Errorf("huge pages: %w", err)
	}
	defer func() { _ = syscall.Munmap(room) }()
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(room))) //nolint:gosec // memory that the collector does not move
	begin = (begin + hugePage - 1) / hugePage * hugePage
	_, _, errno := syscall.Syscall6(syscall.SYS_MMAP, begin, uintptr(length), syscall.PROT_READ,
		syscall.MAP_PRIVATE|mapFixed, file.Fd(), 0)
	if errno != 0 {
		return fmt.Errorf("huge pages: map: %w", errno)
	}
	return do(begin)
}
