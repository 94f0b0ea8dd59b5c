// Package stage starts the processes of a measurement, tells them what to do and says what
// they use. A process is the measuring program itself, started with -role.
package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

const endGrace = 10 * time.Second

// ErrProcess says that a process failed.
var ErrProcess = errors.New("process failed")

// Process is one that a program started. It is used by one goroutine.
type Process struct {
	// Said is what the process said when it was there.
	Said string

	role string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
}

// Start starts this program in a role and waits until it says a line.
func Start(ctx context.Context, role string, args ...string) (*Process, error) {
	return start(ctx, nil, role, args)
}

// StartYielding starts a process that gets the processors when nobody else wants them: what is on a machine of its own takes
// those of this one from nobody. chrt(1) has it run idle, so that whoever else wakes up does so at once (sched(7)). Where there is
// no such program nice(1) makes it the least important, beside which others wait for some milliseconds now and then.
func StartYielding(ctx context.Context, role string, args ...string) (*Process, error) {
	var by []string
	if chrt, err := exec.LookPath("chrt"); err == nil {
		by = []string{chrt, "--idle", "0"}
	} else if nice, err := exec.LookPath("nice"); err == nil {
		by = []string{nice, "-n", "19"}
	}
	return start(ctx, by, role, args)
}

// start starts this program in a role, by another one unless that is empty.
func start(ctx context.Context, by []string, role string, args []string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	line := slices.Concat(by, []string{self, "-role", role}, args)
	p := &Process{role: role, cmd: exec.CommandContext(ctx, line[0], line[1:]...)} //nolint:gosec // this program
	p.cmd.Stderr = os.Stderr
	p.cmd.WaitDelay = endGrace
	in, errIn := p.cmd.StdinPipe()
	out, errOut := p.cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.Hear(&p.Said); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// Tell tells something to whom started the process.
func Tell(v any) error {
	if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	return nil
}

// Hear takes the next thing that the process says.
func (p *Process) Hear(into any) error {
	line, err := p.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProcess, p.role, err)
	}
	return nil
}

// Ask tells the process a word and takes what it answers.
func (p *Process) Ask(word string, into any) error {
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrProcess, p.role, err)
	}
	return p.Hear(into)
}

// Obey answers the words that the process is told, until there are no more.
func Obey(words map[string]func() (any, error)) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		does, ok := words[lines.Text()]
		if !ok {
			return fmt.Errorf("%w: no such word: %q", ErrProcess, lines.Text())
		}
		answer, err := does()
		if err != nil {
			return err
		}
		if err := Tell(answer); err != nil {
			return err
		}
	}
	return nil
}

// Usage is what the process uses now.
func (p *Process) Usage() (Usage, error) { return usageOf(p.cmd.Process.Pid) }

// End closes the input of the process, which ends it, waits, and returns the processor
// time that it used.
func (p *Process) End() (time.Duration, error) {
	_ = p.in.Close()
	late := time.AfterFunc(endGrace, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("%s: %w", p.role, err)
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// Kill ends the process at once and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	_ = p.cmd.Wait()
}
