//go:build linux

package procgroup_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
)

func TestRlimitsHoldFromTheStart(t *testing.T) {
	t.Parallel()
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{
		Rlimits: []procgroup.Rlimit{{Resource: syscall.RLIMIT_NOFILE, Soft: 123, Hard: 123}},
	}, "nofile", "sleep")
	if got := out.next(t).Text; got != "123" {
		t.Errorf("limit of open files: %s", got)
	}
	out.sleeper(t)
	if err := p.Stop(t.Context(), procgroup.Steps{TermWait: wait}); err != nil {
		t.Error(err)
	}
	if exit := ended(t, p); !signalled(syscall.SIGTERM)(exit) {
		t.Errorf("it ended with %v", exit)
	}
}

func TestOpenFileIsExecuted(t *testing.T) {
	t.Parallel()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	out := newCollector()
	p, err := new(procgroup.Starter).Start(&procgroup.Config{
		Path: "/no/such/program", Executable: program, Args: []string{"process", "print=it runs"}, Output: out.take,
	})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, p)
	if got := out.next(t).Text; got != "it runs" {
		t.Errorf("it printed %q", got)
	}
}

// A program starts from an open file under a limit of few descriptors, too, with the files that it is given.
func TestOpenFileIsExecutedWithFewDescriptors(t *testing.T) {
	t.Parallel()
	s, out := new(procgroup.Starter), newCollector()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, few := range []uint64{64, 32} {
		p, err := s.Start(&procgroup.Config{
			Path: path, Args: []string{"process", "opened", "exit=3"}, Output: out.take,
			Rlimits: []procgroup.Rlimit{{Resource: syscall.RLIMIT_NOFILE, Soft: few, Hard: few}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := out.next(t).Text; got != "it runs with what it is given" {
			t.Errorf("of %d descriptors: %s", few, got)
		}
		ended(t, p)
	}
}

func TestProcessesLeaveNoDescriptors(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	s := &procgroup.Starter{Guard: &procgroup.Guard{}}
	run := func() {
		p, _ := begin(t, s, procgroup.Config{}, "print=x")
		ended(t, p)
	}
	run() // what the runtime opens once
	s.Guard.Close()
	before := count()
	s.Guard = &procgroup.Guard{}
	for range 5 {
		run()
	}
	s.Guard.Close()
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Others in this program may have started processes with a death signal, which comes when the
// thread ends that forked. None of those ends with what a Starter does. Other tests of this
// program do end threads, so it runs beside none.
func TestStarterEndsNoProcessesOfOthers(t *testing.T) {
	for range 20 {
		other := exec.Command(os.Args[0], "process", "sleep")
		other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		ended := make(chan error, 1)
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- other.Wait() }()
		t.Cleanup(func() {
			_ = other.Process.Signal(syscall.SIGTERM)
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "terminated") {
				t.Errorf("a process of another: %v", err)
			}
		})
		p, _ := begin(t, &procgroup.Starter{}, procgroup.Config{}, "exit=0")
		<-p.Done()
	}
}

// words are those that not every system knows.
var words = map[string]func(){"first": first}

// first plays the first process of a container, which gets what has lost its parent: it runs a process that leaves one of its own,
// and prints whether anything is left for it to reap.
func first() {
	const setChildSubreaper = 36 // of prctl(2)
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		fmt.Println(errno)
		return
	}
	for range 3 {
		p, err := new(procgroup.Starter).Start(&procgroup.Config{Path: os.Args[0], Args: []string{"process", "child", "exit=0"}})
		if err != nil {
			fmt.Println(err)
			return
		}
		<-p.Done()
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
			fmt.Println("left:", pid, err)
			return
		}
	}
	fmt.Println("nothing is left")
}

// What a process leaves takes no numbers of processes for ever where it comes to this one, as in a container whose first process
// is the host.
func TestWhatAProcessLeavesIsReaped(t *testing.T) {
	t.Parallel()
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{}, "first")
	if got := out.next(t).Text; got != "nothing is left" {
		t.Error(got)
	}
	ended(t, p)
}
