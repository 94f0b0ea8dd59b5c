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
// the processor time of a call without sockets, less that of one that nobody observes. A call takes thirty times
// what is looked for, so one difference says nothing: it is the median of those of many short pairs, of which
// every second one goes the other way round, over several hosts, of which none lies in memory like another.
// What the record takes by itself is BenchmarkCallRecord of the module's root.
func BenchmarkObserver(b *testing.B) {
	const batch, hosts = 20, 4
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var nobody, nothing [hosts]func()
	for i := range hosts {
		nobody[i], nothing[i] = echo.NewMemoryCall(b, nil), echo.NewMemoryCall(b, connectplugin.NopObserver{})
	}
	var calls, more []time.Duration
	for turn := 0; b.Loop(); turn++ {
		for i := range hosts {
			var without, with time.Duration
			if turn%2 == 0 {
				without, with = timeOf(b, nobody[i], batch), timeOf(b, nothing[i], batch)
			} else {
				with, without = timeOf(b, nothing[i], batch), timeOf(b, nobody[i], batch)
			}
			calls, more = append(calls, without), append(more, with-without)
		}
	}
	b.ReportMetric(float64(median(calls))/batch, "ns/call")
	b.ReportMetric(float64(median(more))/batch, "ns/observed")
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
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
