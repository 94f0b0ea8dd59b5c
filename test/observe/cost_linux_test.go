package observe_test

import (
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// BenchmarkObserver is what it takes to tell an observer that does nothing of a routed call:
// the processor time of a call without sockets, less that of one that nobody observes. The two
// take turns, so that both suffer alike from what else the machine does; of either counts what the
// quickest tenth took, which suffered least.
func BenchmarkObserver(b *testing.B) {
	const batch = 100
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nobody, nothing := echo.NewMemoryCall(b, nil), echo.NewMemoryCall(b, connectplugin.NopObserver{})
	var without, with []time.Duration
	for b.Loop() {
		without = append(without, timeOf(b, nobody, batch))
		with = append(with, timeOf(b, nothing, batch))
	}
	call := quick(without)
	b.ReportMetric(float64(call)/batch, "ns/call")
	b.ReportMetric(float64(quick(with)-call)/batch, "ns/observed")
}

// quick is the longest of the quickest tenth.
func quick(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/10]
}

func timeOf(b *testing.B, call func(), times int) time.Duration {
	b.Helper()
	begun := threadTime(b)
	for range times {
		call()
	}
	return threadTime(b) - begun
}

// threadTime is the processor time of the goroutine's thread, to the nanosecond: getrusage knows
// it only as it was at the last tick.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	const thread = 3 // CLOCK_THREAD_CPUTIME_ID
	var now syscall.Timespec
	if _, _, err := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, thread, uintptr(unsafe.Pointer(&now)), 0); err != 0 {
		tb.Fatal(err)
	}
	return time.Duration(now.Nano())
}
