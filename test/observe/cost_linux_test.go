package observe_test

import (
	"cmp"
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
// every second one goes the other way round, over two hosts each, of which none lies in memory like another. Of the
// pairs count the quickest quarter: those between which the machine did something else say what that took.
// What the record takes by itself is BenchmarkCallRecord of the module's root.
func BenchmarkObserver(b *testing.B) {
	const batch, hosts = 50, 2
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var nobody, nothing [hosts]func()
	for i := range hosts {
		nobody[i], nothing[i] = echo.NewMemoryCall(b, nil), echo.NewMemoryCall(b, connectplugin.NopObserver{})
	}
	var pairs []pair
	for turn := 0; b.Loop(); turn++ {
		i := turn / 2 % hosts
		var p pair
		if turn%2 == 0 {
			p.without, p.with = timeOf(b, nobody[i], batch), timeOf(b, nothing[i], batch)
		} else {
			p.with, p.without = timeOf(b, nothing[i], batch), timeOf(b, nobody[i], batch)
		}
		pairs = append(pairs, p)
	}
	slices.SortFunc(pairs, func(p, q pair) int { return cmp.Compare(p.with+p.without, q.with+q.without) })
	pairs = pairs[:(len(pairs)+3)/4]
	b.ReportMetric(median(pairs, func(p pair) time.Duration { return p.without })/batch, "ns/call")
	b.ReportMetric(median(pairs, func(p pair) time.Duration { return p.with - p.without })/batch, "ns/observed")
}

// pair is what so many calls took with an observer, and as many without.
type pair struct{ with, without time.Duration }

// median is that of something of pairs, in nanoseconds.
func median(pairs []pair, of func(pair) time.Duration) float64 {
	all := make([]time.Duration, len(pairs))
	for i, p := range pairs {
		all[i] = of(p)
	}
	slices.Sort(all)
	return float64(all[len(all)/2])
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
