package stage

import (
	"time"

	"golang.org/x/sys/unix"
)

// scheduled marks the clock of a process that counts what the scheduler gave it (clock_getcpuclockid(3)).
const (
	scheduled   = 2
	processBits = 3
)

// processorTime is what a process used so far, zero for one that is not there.
func processorTime(pid int) time.Duration { return clock(int32(^pid<<processBits | scheduled)) } //nolint:gosec // a clock's number is made so

// threadTime is what the calling thread used so far.
func threadTime() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

func clock(id int32) time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(id, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
