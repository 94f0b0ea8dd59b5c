//go:build unix

// Package process runs programs and makes sure that nothing of them is left.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const stopTimeout = 15 * time.Second

// Process is a program that was started, in a process group of its own. Its owner
// stops or kills it. It is safe for concurrent use.
type Process struct {
	// Fixed at creation.
	cmd    *exec.Cmd
	output *output
	done   chan struct{}

	err error // how it ended; written before done is closed
}

// Start starts a program in a directory. Its environment holds that directory, as
// the place for temporary files, and GORACE.
func Start(dir, path string, args ...string) (*Process, error) {
	return StartLogged(nil, dir, path, args...)
}

// StartLogged does what Start does, and writes what the process writes to log as well, nil for nowhere.
// It closes log when the process has ended, or could not be started.
func StartLogged(log io.WriteCloser, dir, path string, args ...string) (*Process, error) {
	p := &Process{output: newOutput(log), done: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:gosec,noctx // the programs are our own, and end with Stop or Kill
	p.cmd.Dir = dir
	p.cmd.Env = []string{"TMPDIR=" + dir, "GORACE=" + os.Getenv("GORACE")}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = runTimeout // a busy machine reads the rest late

	if err := p.cmd.Start(); err != nil {
		p.output.close()

		return nil, fmt.Errorf("start: %w", err)
	}

	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		p.output.close()
	}()

	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output returns what the process has written so far.
func (p *Process) Output() string { return p.output.String() }

// Await waits until the process has written a line that contains text, and
// returns the line. That the process ends without it is an error that holds its
// whole output.
func (p *Process) Await(ctx context.Context, text string) (string, error) {
	line, err := p.output.await(ctx, text)
	if err != nil {
		return "", fmt.Errorf("%s did not say %q: %w; it said:\n%s", p.cmd.Path, text, err, p.Output())
	}

	return line, nil
}

// Wait waits for the end of the process and returns its exit code, -1 where a
// signal ended it.
func (p *Process) Wait(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Stop asks the process to end (SIGTERM) and waits. It is an error if it does not
// end in 15 s, and then is killed, or ends with another code than 0, or leaves a
// process of its group behind.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)

	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.Kill()

		return fmt.Errorf("%s did not stop within %v and was killed; it said:\n%s", p.cmd.Path, stopTimeout, p.Output())
	}

	if p.err != nil {
		return fmt.Errorf("%s: %w; it said:\n%s", p.cmd.Path, p.err, p.Output())
	}

	if p.Left() {
		_ = p.signalGroup(syscall.SIGKILL)

		return fmt.Errorf("%s left a process behind", p.cmd.Path)
	}

	return nil
}

// Kill kills the process and its group (SIGKILL) and waits for its end. It does
// nothing where the process has ended.
func (p *Process) Kill() {
	select {
	case <-p.done:
	default:
		_ = p.signalGroup(syscall.SIGKILL)
		<-p.done
	}
}

// Left reports whether a process of the group is there.
func (p *Process) Left() bool {
	return !errors.Is(p.signalGroup(0), syscall.ESRCH)
}

func (p *Process) signalGroup(signal syscall.Signal) error {
	return syscall.Kill(-p.cmd.Process.Pid, signal)
}
