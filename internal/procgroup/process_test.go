//go:build linux || darwin

package procgroup_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
)

func TestProcessGetsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(theirs.Close(), ours.Close()) }()
	if _, err := ours.WriteString("secret"); err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{Env: []string{"A=1"}, Dir: dir, Files: []*os.File{theirs}},
		"env", "dir", "inherited", "exit=3")
	exit := ended(t, p)
	var got []string
	for range 3 {
		got = append(got, out.next(t).Text)
	}
	if want := []string{"A=1", dir, "secret"}; !slices.Equal(got, want) || !slices.Equal(exit.Tail, want) {
		t.Errorf("it printed %q and left %q, want %q", got, exit.Tail, want)
	}
	if exit.State.ExitCode() != 3 || exit.String() != "exit status 3" {
		t.Errorf("it ended with %v", exit)
	}
}

func TestProcessHasNoEnvironmentUnlessGiven(t *testing.T) {
	t.Parallel()
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{}, "env")
	ended(t, p)
	if got := out.next(t).Text; got != "" {
		t.Errorf("environment %q", got)
	}
}

func TestProcessOutputBlocksNobody(t *testing.T) {
	t.Parallel()
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{}, "flood=4096", "warn=done")
	exit := ended(t, p)
	if exit.State.ExitCode() != 0 || len(exit.Tail) != procgroup.TailLines {
		t.Errorf("exit %v with %d last lines", exit, len(exit.Tail))
	}
	lines, dropped := 0, 0
	for len(out.lines) > 0 {
		l := out.next(t)
		dropped += l.Dropped
		if l.Text != "" && l.Stream == procgroup.Stdout {
			lines++
		}
	}
	if lines+dropped != 4096 || dropped == 0 {
		t.Errorf("%d lines and %d dropped", lines, dropped)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		words []string
		ask   bool
		over  bool // the context has ended
		want  func(procgroup.Exit) bool
	}{
		{"a polite one is only asked", []string{"deaf", "polite", "sleep"}, true, false, exited(7)},
		{"a rude one gets a signal", []string{"sleep"}, true, false, signalled(syscall.SIGTERM)},
		{"a deaf one is killed", []string{"deaf", "sleep"}, true, false, signalled(syscall.SIGKILL)},
		{"nobody is asked without a way", []string{"sleep"}, false, false, signalled(syscall.SIGTERM)},
		{"the end of the context cuts short", []string{"deaf", "sleep"}, true, true, signalled(syscall.SIGKILL)},
		{"one that left its group gets a signal", []string{"leave", "sleep"}, true, false, signalled(syscall.SIGTERM)},
		{"a deaf one that left its group is killed", []string{"deaf", "leave", "sleep"}, true, false, signalled(syscall.SIGKILL)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			theirs, ours, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = errors.Join(theirs.Close(), ours.Close()) }()
			p, out := begin(t, &procgroup.Starter{}, procgroup.Config{Files: []*os.File{theirs}}, tt.words...)
			out.sleeper(t)
			// Short where the step must fail, long where it must not.
			steps := procgroup.Steps{AskWait: wait, TermWait: wait}
			if !slices.Contains(tt.words, "polite") {
				steps.AskWait = 10 * time.Millisecond
			}
			if tt.words[0] == "deaf" && !tt.over {
				steps.TermWait = 10 * time.Millisecond
			}
			if tt.ask {
				steps.Ask = func(context.Context) error {
					_, err := ours.WriteString("!")
					return err
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			if tt.over {
				cancel()
			}
			defer cancel()
			if err := p.Stop(ctx, steps); err != nil {
				t.Fatal(err)
			}
			if exit := ended(t, p); !tt.want(exit) {
				t.Errorf("it ended with %v", exit)
			}
		})
	}
}

func exited(code int) func(procgroup.Exit) bool {
	return func(e procgroup.Exit) bool { return e.State.ExitCode() == code }
}

func signalled(s syscall.Signal) func(procgroup.Exit) bool {
	return func(e procgroup.Exit) bool {
		status, ok := e.State.Sys().(syscall.WaitStatus)
		return ok && status.Signaled() && status.Signal() == s
	}
}

func TestGrandchildrenEndWithTheProcess(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*procgroup.Process) error{
		"killed":          (*procgroup.Process).Kill,
		"killed outside":  func(p *procgroup.Process) error { return syscall.Kill(p.Pid(), syscall.SIGKILL) },
		"ended by itself": func(p *procgroup.Process) error { return syscall.Kill(p.Pid(), syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, out := begin(t, &procgroup.Starter{}, procgroup.Config{}, "child", "sleep")
			a, b := out.sleeper(t), out.sleeper(t)
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			ended(t, p)
			gone(t, "process or grandchild", a)
			gone(t, "process or grandchild", b)
		})
	}
}

func TestNoSignalAfterTheEnd(t *testing.T) {
	t.Parallel()
	p, _ := begin(t, &procgroup.Starter{}, procgroup.Config{}, "exit=0")
	ended(t, p)
	for name, send := range map[string]func() error{"Terminate": p.Terminate, "Kill": p.Kill} {
		if err := send(); !errors.Is(err, procgroup.ErrEnded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Stop(t.Context(), procgroup.Steps{AskWait: wait, TermWait: wait}); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// On Linux the death signal comes when the thread ends that forked, not the process.
func TestProcessOutlivesTheThreadOfItsCaller(t *testing.T) {
	t.Parallel()
	var p *procgroup.Process
	var out *collector
	over := make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // the thread ends with this goroutine
		p, out = begin(t, &procgroup.Starter{}, procgroup.Config{}, "sleep")
	}()
	<-over
	out.sleeper(t)
	for range 50 {
		time.Sleep(time.Millisecond) // as long as a death signal takes
		select {
		case <-p.Done():
			t.Fatalf("it ended with the thread: %v", p.Exit())
		default:
		}
	}
}

// Also where there were no descriptors for a guard when the first process was to start.
func TestEverythingEndsWithAKilledParent(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"parent", "starving"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			path, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			var printed lockedBuffer
			parent := exec.CommandContext(t.Context(), path, "process", kind, "sleep")
			parent.Stdout = &printed
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			var sleepers []string
			for deadline := time.Now().Add(wait); len(sleepers) < 3; sleepers = strings.Fields(strings.ReplaceAll(printed.String(), "sleeping ", "")) {
				if time.Now().After(deadline) {
					t.Fatalf("printed %q", printed.String())
				}
				time.Sleep(time.Millisecond) // polls the output of a process
			}
			if err := parent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = parent.Wait()
			for _, pid := range sleepers {
				number, err := strconv.Atoi(pid)
				if err != nil {
					t.Fatal(err)
				}
				gone(t, "a process of the killed parent", number)
			}
		})
	}
}

// What is no program is refused with its own name, and with what to do instead.
func TestNoProgramIsRefusedInWords(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"a text": "echo no interpreter is named\n", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "text")
			syscall.ForkLock.RLock() // what another test starts would hold it open for writing
			err := os.WriteFile(path, []byte(content), 0o700)
			syscall.ForkLock.RUnlock()
			if err != nil {
				t.Fatal(err)
			}
			p, err := new(procgroup.Starter).Start(&procgroup.Config{Path: path})
			if err == nil {
				<-p.Done()
				t.Fatal("it runs")
			}
			if said := err.Error(); !errors.Is(err, syscall.ENOEXEC) || !strings.Contains(said, "start the interpreter") || strings.Count(said, path) != 1 {
				t.Errorf("%v", err)
			}
		})
	}
}

// Where the working directory is what does not do, its name is said: the system names the program.
func TestNoDirectoryIsRefusedInWords(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "nowhere")
	for _, dir := range []string{dir, program} {
		p, err := new(procgroup.Starter).Start(&procgroup.Config{Path: program, Dir: dir})
		if err == nil {
			<-p.Done()
			t.Fatal("it runs")
		}
		if !strings.Contains(err.Error(), "working directory would be "+dir) {
			t.Errorf("%v", err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]procgroup.Config{
		"relative path": {Path: "program"},
		"relative dir":  {Path: "/program", Dir: "dir"},
		"zero byte":     {Path: "/program", Args: []string{"a secret\x00b"}},
		"and in Env":    {Path: "/program", Env: []string{"A=1", "KEY=a secret\x00b"}},
		"limits":        {Path: "/program", Rlimits: []procgroup.Rlimit{{Soft: 2, Hard: 1}}},
	} {
		if _, err := new(procgroup.Starter).Start(&cfg); !errors.Is(err, procgroup.ErrConfig) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := new(procgroup.Starter).Start(&procgroup.Config{Path: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}

// lockedBuffer is a buffer for two goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
