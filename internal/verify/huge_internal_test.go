//go:build linux && (amd64 || arm64)

package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// What is executed lies in huge pages, where the kernel can, and is what was read, sealed.
func TestAProgramLiesInHugePages(t *testing.T) {
	t.Parallel()
	program := append([]byte("\x7fELF"), bytes.Repeat([]byte("program "), 2*hugePage/8+1000)...)
	img, err := newImage(bytes.NewReader(program))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.file.Close() }()
	got, err := io.ReadAll(img.file)
	if err != nil || !bytes.Equal(got, program) {
		t.Errorf("%d bytes of %d, or others: %v", len(got), len(program), err)
	}
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", img.file.Fd()), os.O_WRONLY, 0)
	if err == nil {
		_, err = again.WriteString("x")
		_ = again.Close()
	}
	if !errors.Is(err, syscall.EPERM) {
		t.Errorf("it can be written: %v", err)
	}
	if err := gather(img.file); err != nil {
		t.Skipf("the kernel gathers nothing: %v", err)
	}
	err = mapHuge(img.file, 2*hugePage, func(begin uintptr) error {
		if first := *(*byte)(unsafe.Add(nil, begin)); first != program[0] {
			t.Errorf("it begins with %q", first)
		}
		if mapped := mappedHuge(t, begin); mapped == "0" {
			t.Errorf("%s kB are mapped as huge pages", mapped)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// mappedHuge returns how many kB of the mapping at an address are huge pages.
func mappedHuge(t *testing.T, begin uintptr) string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut("\n"+string(raw), fmt.Sprintf("\n%x-", begin))
	found := regexp.MustCompile(`ShmemPmdMapped: *(\d+) kB`).FindStringSubmatch(rest)
	if found == nil {
		t.Fatalf("no mapping at %x", begin)
	}
	return found[1]
}

// A file that is shorter than a huge page is left as it is.
func TestAShortProgramIsLeftAlone(t *testing.T) {
	t.Parallel()
	img, err := newImage(strings.NewReader("\x7fELF"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.file.Close() }()
	if err := gather(img.file); err != nil {
		t.Error(err)
	}
}
