package attack_test

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// processClock is the clock of this process alone, which a test sets. Programs read the
// time through a function that the kernel puts into their memory (vdso(7)); here that jumps
// to another one, which asks the kernel and adds what the test says.
type processClock struct{ ahead *int64 }

// Where things are in the page of the function.
const (
	aheadAt     = 64 // seconds
	loadEndsAt  = 18 // from there its code counts how far that is
	pageSize    = 4096
	jumpLen     = 5
	nearTheVDSO = 16 << 20
)

// takeClock replaces what this process reads the time with. That is for good, so it belongs
// in a process that runs one test.
func takeClock(t *testing.T) processClock {
	t.Helper()
	start, end := vdso(t)
	image := bytes.Clone(unsafe.Slice((*byte)(pointer(start)), end-start))
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var entry uintptr
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			entry = start + uintptr(s.Value)
		}
	}
	page, _, errno := syscall.Syscall6(syscall.SYS_MMAP, start-nearTheVDSO, pageSize,
		syscall.PROT_READ|syscall.PROT_WRITE|syscall.PROT_EXEC, syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0)
	if errno != 0 {
		t.Skipf("this system has no page that can be written and run: %v", errno)
	}
	if entry == 0 || entry%8 != 0 {
		t.Fatalf("the function is at %#x", entry)
	}
	copy(unsafe.Slice((*byte)(pointer(page)), pageSize), askAndAdd())
	if _, _, errno := syscall.Syscall(syscall.SYS_MPROTECT, start, end-start, syscall.PROT_READ|syscall.PROT_WRITE|syscall.PROT_EXEC); errno != 0 {
		t.Skipf("this kernel lets nobody change what a process reads the time with: %v", errno)
	}
	first := (*uint64)(pointer(entry))
	word := binary.LittleEndian.AppendUint64(nil, atomic.LoadUint64(first))
	word[0] = 0xe9 // jmp
	binary.LittleEndian.PutUint32(word[1:], uint32(int32(int64(page)-int64(entry)-jumpLen)))
	atomic.StoreUint64(first, binary.LittleEndian.Uint64(word)) // at once, for threads that read the time just now
	c := processClock{(*int64)(pointer(page + aheadAt))}
	before := time.Now()
	c.set(time.Hour)
	if after := time.Now().Round(0); after.Sub(before.Round(0)) < time.Hour {
		t.Fatalf("the clock did not move: %s, then %s", before, after)
	}
	c.set(0)
	return c
}

// set sets the clock, as far from the machine's as it says.
func (c processClock) set(ahead time.Duration) { atomic.StoreInt64(c.ahead, int64(ahead/time.Second)) }

// askAndAdd is clock_gettime as a system call, which adds to the real time.
func askAndAdd() []byte {
	code := []byte{
		0xb8, 228, 0, 0, 0, // mov $228, %eax
		0x0f, 0x05, // syscall
		0x85, 0xff, // test %edi, %edi: is it CLOCK_REALTIME?
		0x75, 10, // jne to the end
		0x48, 0x8b, 0x0d, aheadAt - loadEndsAt, 0, 0, 0, // mov ahead(%rip), %rcx
		0x48, 0x01, 0x0e, // add %rcx, (%rsi)
		0xc3, // ret
	}
	return code
}

// vdso returns where the kernel's functions are.
func vdso(t *testing.T) (start, end uintptr) {
	t.Helper()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !strings.HasSuffix(lines.Text(), "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x", &start, &end); err != nil {
			t.Fatal(err)
		}
	}
	if start == 0 {
		t.Skip("this kernel gives processes no function to read the time with")
	}
	return start, end
}

// pointer is an address outside of what Go manages. Inlined, it crashes the compiler of Go 1.26.
//
//go:noinline
func pointer(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }
