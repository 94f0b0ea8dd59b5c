package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one that the command started.
type process struct {
	cmd   *exec.Cmd
	told  atomic.Pointer[tally] // the last that it told
	got   *arrivals             // of its calls, with those of other processes
	late  lag
	ended chan struct{}
}

// tally is what a process tells of itself.
type tally struct {
	Issued      int64         `json:"issued"` // identities of a host
	Renewed     int64         `json:"renewed"`
	Connections int64         `json:"connections"` // that it accepted
	Processor   time.Duration `json:"processor"`
	Arrived     []uint64      `json:"arrived,omitempty"` // numbers of calls that providers got since the last time
	Late        time.Duration `json:"late"`              // by which it tells this too late
}

// since returns what was added since an earlier one of the same process.
func (t tally) since(before tally) tally {
	return tally{
		Issued: t.Issued - before.Issued, Renewed: t.Renewed - before.Renewed, Connections: t.Connections - before.Connections,
		Processor: t.Processor - before.Processor,
	}
}

// processor is the processor time that this process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tell tells what a process did, again and again until ctx ends.
func tell(ctx context.Context, now func() tally) {
	for due := time.Now(); ; {
		t := now()
		t.Late = time.Since(due)
		t.Processor = processor()
		said, err := json.Marshal(t)
		if err == nil {
			_, err = fmt.Fprintln(os.Stdout, string(said))
		}
		if err != nil {
			return
		}
		due = time.Now().Add(tellEvery)
		select {
		case <-time.After(tellEvery):
		case <-ctx.Done():
			return
		}
	}
}

// start starts this program in a role and waits until it says that it is there.
func (s *site) start(ctx context.Context, role string, first, plugins int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	p := &process{ended: make(chan struct{}), got: s.arrived}
	p.cmd = exec.CommandContext(ctx, self, "-role", role, "-dir", s.dir, "-addr", s.addr, //nolint:gosec // this program
		"-first", strconv.Itoa(first), "-plugins", strconv.Itoa(plugins), "-profile", s.profiles,
		"-per-address", strconv.Itoa(s.perAddress), "-watches", strconv.Itoa(s.watches))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	in := json.NewDecoder(out)
	there := p.hear(in)
	go func() {
		defer close(p.ended)
		for p.hear(in) {
		}
		_ = p.cmd.Wait()
	}()
	if !there {
		p.kill()
		return nil, fmt.Errorf("%w: %s did not start", errRole, role)
	}
	return p, nil
}

// hear takes in what the process tells next, and reports whether there was something.
func (p *process) hear(in *json.Decoder) bool {
	var t tally
	if in.Decode(&t) != nil {
		return false
	}
	p.got.add(t.Arrived)
	p.late.note(t.Late)
	p.told.Store(&t)
	return true
}

// kill ends the process at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop asks the process to end, and waits.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.ended
}
