package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"
)

// The roles of processes.
const (
	roleHost     = "host"
	roleProxy    = "proxy"
	roleProvider = "provider" // a plugin
	rolePlain    = "plain"    // the same service on net/http alone
	roleCaller   = "caller"
)

// What a process can be told to do.
const (
	doUsage   = "usage"   // report the processor time that the process has used
	doMemory  = "memory"  // report the memory that it needs
	doProfile = "profile" // write a CPU profile to Path from now on; an empty one ends it
	doLoad    = "load"    // of a caller: make calls
	doHold    = "hold"    // of a caller: open streams and keep them open
	doRelease = "release" // of a caller: end them
)

var errOrder = errors.New("order is not understood")

// order is a line that the command writes to a process.
type order struct {
	Do       string        `json:"do"`
	Way      string        `json:"way,omitempty"`      // to whom calls go
	Target   string        `json:"target,omitempty"`   // base URL of the way
	Scenario string        `json:"scenario,omitempty"` // name of it
	Callers  int           `json:"callers,omitempty"`
	Time     time.Duration `json:"time,omitempty"`
	Path     string        `json:"path,omitempty"`
}

// report is the line that it answers.
type report struct {
	Error string `json:"error,omitempty"`
	URL   string `json:"url,omitempty"` // where a server listens, at its start

	Operations int           `json:"operations,omitempty"`
	Elapsed    time.Duration `json:"elapsed,omitempty"`
	Median     time.Duration `json:"median,omitempty"`
	Slow       time.Duration `json:"slow,omitempty"` // the 99th percentile

	CPU    time.Duration `json:"cpu,omitempty"`    // used so far
	Memory int64         `json:"memory,omitempty"` // in live objects and stacks
}

// obey answers orders until the input ends or ctx does. The first line says that
// the process is ready.
func obey(ctx context.Context, url string, more func(context.Context, order) (report, error)) error {
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(report{URL: url}); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	orders, failed := make(chan order), make(chan error, 1)
	go func() {
		in := json.NewDecoder(os.Stdin)
		for {
			var o order
			if err := in.Decode(&o); err != nil {
				failed <- err
				return
			}
			orders <- o
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("order: %w", err)
		case o := <-orders:
			if err := out.Encode(carryOut(ctx, o, more)); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
	}
}

// carryOut does what every process can do and leaves the rest to more.
func carryOut(ctx context.Context, o order, more func(context.Context, order) (report, error)) report {
	var r report
	var err error
	switch {
	case o.Do == doUsage:
		r, err = usage()
	case o.Do == doMemory:
		r = memory()
	case o.Do == doProfile:
		err = profile(o.Path)
	case more != nil:
		r, err = more(ctx, o)
	default:
		err = fmt.Errorf("%w: %q", errOrder, o.Do)
	}
	if err != nil {
		return report{Error: err.Error()}
	}
	return r
}

// usage says what time the process has used.
func usage() (report, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return report{}, fmt.Errorf("usage: %w", err)
	}
	return report{CPU: time.Duration(used.Utime.Nano() + used.Stime.Nano())}, nil
}

// memory says what memory the process needs.
func memory() report {
	runtime.GC()
	runtime.GC() // a pool gives back in the second what it kept in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return report{Memory: int64(m.HeapAlloc + m.StackInuse)} //nolint:gosec // far below
}

// profile starts or ends the profile of the process.
func profile(path string) error {
	if path == "" {
		pprof.StopCPUProfile()
		return nil
	}
	f, err := os.Create(path) //nolint:gosec // where the user said
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return nil
}
