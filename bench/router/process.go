package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

const endGrace = 5 * time.Second

var errProcess = errors.New("process failed")

// process is one that the command started.
type process struct {
	role string
	url  string // where it listens
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

// start starts this program in a role and waits until it is ready.
func start(ctx context.Context, role string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("executable: %w", err)
	}
	p := &process{role: role, cmd: exec.CommandContext(ctx, self, append([]string{"-role", role}, args...)...)} //nolint:gosec // this program
	p.cmd.Stderr = os.Stderr
	p.cmd.WaitDelay = endGrace
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	p.out = json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", role, err)
	}
	ready, err := p.answer()
	if err != nil {
		return nil, errors.Join(err, p.end())
	}
	p.url = ready.URL
	return p, nil
}

// tell gives the process an order and returns its report.
func (p *process) tell(o order) (report, error) {
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return report{}, fmt.Errorf("%s: %w", p.role, err)
	}
	return p.answer()
}

func (p *process) answer() (report, error) {
	var r report
	if err := p.out.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", p.role, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%w: %s: %s", errProcess, p.role, r.Error)
	}
	return r, nil
}

// end closes the input of the process, which ends it, and waits.
func (p *process) end() error {
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", p.role, err)
	}
	return nil
}
