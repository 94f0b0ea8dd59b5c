package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	keptOutput = 2000 // bytes of what a process said last
	killAfter  = 15 * time.Second
)

// Names of the environment that a subject is started with.
const (
	envHost   = "CONFORMANCE_HOST"
	envSelf   = "CONFORMANCE_SELF"
	envDir    = "CONFORMANCE_DIR"
	envSecret = "CONFORMANCE_SECRET" //nolint:gosec // a name
	envAddr   = "CONFORMANCE_ADDR"
)

// process is a subject that runs. Its owner ends it with kill.
type process struct {
	// Fixed at creation.
	cmd  *exec.Cmd
	said *tail
	done chan struct{}

	err error // how it ended; written before done is closed
}

// launch starts a subject in a process group of its own.
func launch(command, env []string, log io.Writer) (*process, error) {
	p := &process{
		cmd:  exec.Command(command[0], command[1:]...), //nolint:gosec,noctx // the user's own command; ends with kill
		said: &tail{also: log}, done: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// environment is what a subject is told.
func environment(host, self, dir string, secret []byte) []string {
	return []string{envHost + "=" + host, envSelf + "=" + self, envDir + "=" + dir, envSecret + "=" + hex.EncodeToString(secret)}
}

func (p *process) signal() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// kill kills the process and its group, and waits.
func (p *process) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

var errStillRuns = errors.New("the process goes on")

// exited waits until the process has ended by itself, well.
func (p *process) exited(ctx context.Context) error {
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("it ends with %w; it said: %s", p.err, p.said)
		}
		return nil
	case <-ctx.Done():
		return errStillRuns
	}
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	also io.Writer // may be nil

	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.also != nil {
		_, _ = t.also.Write(b)
	}
	t.text = append(t.text, b...)
	t.text = bytes.Clone(t.text[max(0, len(t.text)-keptOutput):])
	return len(b), nil
}

// String returns it on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.text)), " ")
}
