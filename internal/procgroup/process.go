package procgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// Times at the end of a process.
const (
	// outputWait is how long a stream may stay open after the end of its process: somebody
	// else, who left the group, holds it then.
	outputWait = 250 * time.Millisecond
	// killWait is how long the kernel may take to end what was killed.
	killWait = 5 * time.Second
)

// ErrEnded says that a process cannot be signalled because it has ended.
var ErrEnded = errors.New("process has ended")

// Process is a running process with its group. It is safe for concurrent use.
type Process struct {
	// Fixed at creation.
	proc  *os.Process
	io    *streams
	done  chan struct{} // closed when it was reaped and its output is read
	guard *Guard
	tail  Tail

	reading sync.WaitGroup

	mu   sync.Mutex
	over bool // the process is about to be reaped: its id must not be used
	exit Exit // written before done is closed
}

// Exit is how a process ended.
type Exit struct {
	// State is nil where the system could not say.
	State *os.ProcessState
	// At is when it was noticed.
	At time.Time
	// Tail holds the last lines that it printed.
	Tail []string
}

// String describes the end in the system's words.
func (e Exit) String() string {
	if e.State == nil {
		return "ended"
	}
	return e.State.String()
}

// Pid returns the process id, which is the id of the group. It may belong to somebody
// else once [Process.Done] is closed.
func (p *Process) Pid() int { return p.proc.Pid }

// Done returns a channel that is closed when the process was reaped and its output read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended, once Done is closed.
func (p *Process) Exit() Exit {
	select {
	case <-p.done:
		return p.exit
	default:
		return Exit{}
	}
}

// Tail returns the last lines that the process printed.
func (p *Process) Tail() []string { return p.tail.Lines() }

// Lines makes what cuts into lines what the process prints in another way than on its own
// streams. The last ones are kept among the others. It is for one goroutine.
func (p *Process) Lines(stream Stream, emit func(Line)) *Lines {
	return NewLines(stream, time.Now, &p.tail, emit)
}

// Terminate asks the group to end. ErrEnded says that the process did already.
func (p *Process) Terminate() error { return p.signal(terminateGroup) }

// Kill kills the group. ErrEnded says that the process has ended already.
func (p *Process) Kill() error { return p.signal(killGroup) }

// Steps say how [Process.Stop] ends a process.
type Steps struct {
	// Ask asks the process to end. Nil, and an error, go on to the signal at once.
	Ask func(context.Context) error
	// AskWait bounds Ask and the wait for its effect.
	AskWait time.Duration
	// TermWait bounds the wait after SIGTERM.
	TermWait time.Duration
}

// Stop ends the process: it asks, waits, sends SIGTERM to the group, waits, sends SIGKILL to
// the group, and returns when the process was reaped. The end of ctx cuts the waits short,
// not the end of the process. An error says that the system does not let it end.
func (p *Process) Stop(ctx context.Context, steps Steps) error {
	if steps.Ask != nil && p.ask(ctx, steps) {
		return nil
	}
	if p.Terminate() == nil && p.wait(ctx, steps.TermWait) {
		return nil
	}
	_ = p.Kill()
	if !p.wait(context.WithoutCancel(ctx), killWait) {
		return fmt.Errorf("process %d does not end, though it was killed", p.Pid())
	}
	return nil
}

func (p *Process) signal(send func(*os.Process) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return ErrEnded
	}
	return send(p.proc)
}

func (p *Process) ask(ctx context.Context, steps Steps) bool {
	ctx, cancel := context.WithTimeout(ctx, steps.AskWait)
	defer cancel()
	asked := make(chan error, 1)
	go func() { asked <- steps.Ask(ctx) }()
	select {
	case err := <-asked:
		return err == nil && p.wait(ctx, steps.AskWait)
	case <-p.done:
		cancel()
		<-asked //nolint:errcheck // the process has ended
		return true
	}
}

// wait reports whether the process ended in time.
func (p *Process) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// read passes on what the process prints.
func (p *Process) read(emit func(Line)) {
	for stream, file := range map[Stream]*os.File{Stdout: p.io.stdout, Stderr: p.io.stderr} {
		lines := NewLines(stream, time.Now, &p.tail, emit)
		p.reading.Go(func() { _, _ = lines.ReadFrom(file) })
	}
}

// watch waits for the end of the process, kills what is left of its group, and reaps it. What
// has left the group, too, is for rest to end.
func (p *Process) watch(rest func()) {
	state, unreaped := awaitExit(p.proc)
	p.mu.Lock()
	if unreaped {
		_ = killGroup(p.proc) // nobody may be left
	}
	p.over = true
	p.mu.Unlock()
	if p.guard != nil {
		p.guard.remove(strconv.Itoa(p.proc.Pid))
	}
	if state == nil {
		state, _ = p.proc.Wait()
	}
	rest()
	if unreaped {
		reapGroup(p.proc.Pid, time.Now().Add(killWait))
	}
	deadline := time.Now().Add(outputWait)
	_ = p.io.stdout.SetReadDeadline(deadline)
	_ = p.io.stderr.SetReadDeadline(deadline)
	p.reading.Wait()
	p.io.closeParent()
	p.exit = Exit{State: state, At: time.Now(), Tail: p.tail.Lines()}
}
