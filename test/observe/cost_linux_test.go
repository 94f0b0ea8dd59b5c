package observe_test

import (
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// BenchmarkObserver is what it takes to tell an observer that does nothing of a routed call:
// the processor time of a call without sockets, less that of one that nobody observes. The two
// take turns, so that both suffer alike from what else the machine does; the medians count.
func BenchmarkObserver(b *testing.B) {
	const batch = 100
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nobody, nothing := echo.NewMemoryCall(b, nil), echo.NewMemoryCall(b, connectplugin.NopObserver{})
	var all, more []time.Duration
	for b.Loop() {
		without := timeOf(b, nobody, batch)
		with := timeOf(b, nothing, batch)
		all, more = append(all, without), append(more, with-without)
	}
	for name, list := range map[string][]time.Duration{"ns/call": all, "ns/observed": more} {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Nanoseconds())/batch, name)
	}
}

func timeOf(b *testing.B, call func(), times int) time.Duration {
	b.Helper()
	begun := threadTime(b)
	for range times {
		call()
	}
	return threadTime(b) - begun
}

// threadTime is the processor time of the goroutine's thread.
func threadTime(tb testing.TB) time.Duration {
	tb.Helper()
	const thread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
