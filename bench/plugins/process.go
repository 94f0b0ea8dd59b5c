package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/masegraye/connect-plugin-go/bench/plugins/side"
)

const endGrace = 10 * time.Second

var errOfSide = errors.New("a side failed")

// host is the process of one side.
type host struct {
	name string
	dir  string // for its temporary files
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
}

// startHost starts a side's host, with a directory for temporary files of its own.
func startHost(ctx context.Context, programs, name, plugin string) (*host, error) {
	dir, err := os.MkdirTemp("/tmp", "bench") // short enough for a socket's address
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	h := &host{name: name, dir: dir}
	h.cmd = exec.CommandContext(ctx, filepath.Join(programs, name), filepath.Join(programs, plugin)) //nolint:gosec // what was built for this
	h.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	h.cmd.Stderr = os.Stderr
	h.cmd.Cancel = func() error { return h.cmd.Process.Signal(os.Interrupt) }
	h.cmd.WaitDelay = endGrace
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		h.in, err = h.cmd.StdinPipe()
	}
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(err, os.RemoveAll(dir)))
	}
	h.out = json.NewDecoder(out)
	return h, nil
}

// tell gives an order and returns the report.
func (h *host) tell(o side.Order) (side.Report, error) {
	var r side.Report
	if err := json.NewEncoder(h.in).Encode(o); err != nil {
		return r, fmt.Errorf("%s: %w", h.name, err)
	}
	if err := h.out.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: %w", h.name, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%w: %s: %s: %s", errOfSide, h.name, o.Do, r.Error)
	}
	return r, nil
}

// end ends the process.
func (h *host) end() error {
	_ = h.in.Close()
	err := h.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w", h.name, err)
	}
	return errors.Join(err, os.RemoveAll(h.dir))
}
