package main

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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	stopGrace  = 10 * time.Second
	keptOutput = 2000 // bytes of what a process said last
	keptLines  = 16   // a case says two at most
)

var (
	errSilent  = errors.New("the process said nothing in time")
	errStopped = errors.New("the process ended")
)

// process is one of a peer. Its owner stops or kills it.
type process struct {
	// Fixed at creation.
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan echo.Line // closed at the end of its output
	said  *tail          // its standard error
	done  chan struct{}

	err error // how it ended; written before done is closed
}

// start starts a process in a group of its own.
func start(p *peer, j echo.Job, args ...string) (*process, error) {
	text, err := json.Marshal(j) //nolint:gosec // the secrets are of this run alone
	if err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	all := slices.Concat(p.command[1:], args)
	s := &process{
		cmd:  exec.Command(p.command[0], all...), //nolint:gosec,noctx // ends with stop or kill
		said: &tail{}, lines: make(chan echo.Line, keptLines), done: make(chan struct{}),
	}
	s.cmd.Env = append(append(os.Environ(), p.env...), echo.Env+"="+string(text))
	s.cmd.Stderr = s.said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.WaitDelay = time.Second
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	go s.watch(out)
	return s, nil
}

// watch reads the process's lines and waits for its end.
func (s *process) watch(out io.Reader) {
	defer close(s.done)
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		var l echo.Line
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			_, _ = fmt.Fprintln(s.said, scanner.Text())
			continue
		}
		select {
		case s.lines <- l:
		default: // more than any case says
		}
	}
	close(s.lines)
	s.err = s.cmd.Wait()
}

// next waits for the next line.
func (s *process) next(ctx context.Context) (echo.Line, error) {
	select {
	case l, ok := <-s.lines:
		if !ok {
			<-s.done
			return l, fmt.Errorf("%w: %w %s", errStopped, orNone(s.err), s.said)
		}
		return l, nil
	case <-ctx.Done():
		return echo.Line{}, fmt.Errorf("%w %s", errSilent, s.said)
	}
}

// tell writes a line to the process.
func (s *process) tell(text string) error {
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	return nil
}

// stop asks the process to end (SIGTERM), and kills it where it does not in time. It
// reports whether it ended by itself.
func (s *process) stop() bool {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-s.done:
		return true
	case <-timer.C:
		s.kill()
		return false
	}
}

// kill kills the process and its group (SIGKILL) and waits.
func (s *process) kill() {
	select {
	case <-s.done:
		return
	default:
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

var errNone = errors.New("without an error")

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-keptOutput):]
	return len(b), nil
}

// String returns it on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.text)), " ")
}
