package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
)

// process is one that the command started.
type process struct {
	cmd   *exec.Cmd
	told  atomic.Int64 // the last number that it printed
	ended chan struct{}
}

// start starts this program in a role and waits until it says that it is there.
func (s *site) start(ctx context.Context, role string, first, plugins int) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, self, "-role", role, "-dir", s.dir, "-addr", s.addr, //nolint:gosec // this program
		"-first", strconv.Itoa(first), "-plugins", strconv.Itoa(plugins))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	lines := bufio.NewScanner(out)
	there := lines.Scan()
	go func() {
		defer close(p.ended)
		for lines.Scan() {
			if n, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
				p.told.Store(n)
			}
		}
		_ = p.cmd.Wait()
	}()
	if !there {
		p.kill()
		return nil, fmt.Errorf("%w: %s did not start", errRole, role)
	}
	return p, nil
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
