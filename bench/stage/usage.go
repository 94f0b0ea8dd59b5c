package stage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	ticksPerSecond = 100 // of /proc, on every Linux
	afterName      = 2   // fields of /proc/PID/stat that stand before the state
	fieldUser      = 13 - afterName
	fieldSystem    = 14 - afterName
	fieldResident  = 1 // of /proc/PID/statm
	sampling       = 20 * time.Millisecond
)

// Usage is what a process uses.
type Usage struct {
	CPU         time.Duration
	Resident    int64 // bytes
	Descriptors int
}

func usageOf(pid int) (Usage, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	var u Usage
	stat, err := os.ReadFile(dir + "/stat") //nolint:gosec // of a process that we started
	if err != nil {
		return u, fmt.Errorf("usage: %w", err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	for _, at := range []int{fieldUser, fieldSystem} {
		ticks, err := strconv.ParseInt(string(fields[at]), 10, 64)
		if err != nil {
			return u, fmt.Errorf("usage: %w", err)
		}
		u.CPU += time.Duration(ticks) * time.Second / ticksPerSecond
	}
	if u.Resident, err = resident(dir); err != nil {
		return u, err
	}
	open, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return u, fmt.Errorf("usage: %w", err)
	}
	u.Descriptors = len(open)
	return u, nil
}

func resident(dir string) (int64, error) {
	statm, err := os.ReadFile(dir + "/statm") //nolint:gosec // of a process that we started
	if err != nil {
		return 0, fmt.Errorf("usage: %w", err)
	}
	pages, err := strconv.ParseInt(string(bytes.Fields(statm)[fieldResident]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("usage: %w", err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// Watch notes the most memory that the process has until ctx ends or stop is called, which returns it.
func (p *Process) Watch(ctx context.Context) (stop func() int64) {
	ctx, cancel := context.WithCancel(ctx)
	var most atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		for ctx.Err() == nil {
			if now, err := resident("/proc/" + strconv.Itoa(p.cmd.Process.Pid)); err == nil {
				most.Store(max(most.Load(), now))
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return func() int64 {
		cancel()
		<-done
		return most.Load()
	}
}
