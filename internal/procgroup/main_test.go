//go:build linux || darwin

package procgroup_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
)

// wait bounds everything that a test waits for.
const wait = time.Minute

// TestMain is the main function of the tests, and of the processes that they start.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "process" {
		for _, word := range os.Args[2:] {
			process(word)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process does what a word says.
func process(word string) {
	name, value, _ := strings.Cut(word, "=")
	number, _ := strconv.Atoi(value)
	switch name {
	case "exit":
		os.Exit(number)
	case "print":
		fmt.Println(value)
	case "warn":
		fmt.Fprintln(os.Stderr, value)
	case "flood": // so many lines of a kilobyte
		line := strings.Repeat("x", 1023)
		for range number {
			fmt.Println(line)
		}
	case "env":
		fmt.Println(strings.Join(os.Environ(), " "))
	case "dir":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "nofile":
		var limit syscall.Rlimit
		_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		fmt.Println(limit.Max)
	case "inherited":
		data := make([]byte, 64)
		n, _ := os.NewFile(3, "inherited").Read(data)
		fmt.Println(string(data[:n]))
	case "deaf":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	case "leave": // the group that was made for it, for that of whoever started it
		group, err := syscall.Getpgid(os.Getppid())
		if err == nil {
			err = syscall.Setpgid(0, group)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "polite": // ends when its third descriptor does
		go func() {
			_, _ = os.NewFile(3, "ask").Read(make([]byte, 1))
			os.Exit(7)
		}()
	case "child": // a grandchild of the test, in the same group
		child()
	case "daemon": // a grandchild of the test that leaves the group
		daemon()
	case "parent":
		parent(newStarter(), procgroup.Config{}, "child", "sleep")
	case "starving": // a parent that had no descriptors left for a while
		s := newStarter()
		starve(s)
		parent(s, procgroup.Config{}, "child", "sleep")
	case "keeper": // a parent whose process has a control group
		parent(newStarter(), procgroup.Config{Cgroup: value}, "daemon", "sleep")
	case "opened": // starts this program from an open file, and passes on what that prints
		if err := opened(); err != nil {
			fmt.Println(err)
		}
	case "sleep":
		fmt.Println("sleeping", os.Getpid())
		time.Sleep(time.Hour)
	default:
		if f := words[name]; f != nil {
			f()
		}
	}
}

// child starts a process that ignores gentle signals.
func child() {
	cmd := exec.Command(os.Args[0], "process", "deaf", "sleep")
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
	}
}

// daemon starts a process that has a session of its own.
func daemon() {
	cmd := exec.Command(os.Args[0], "process", "deaf", "sleep")
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
	}
}

func newStarter() *procgroup.Starter { return &procgroup.Starter{Guard: &procgroup.Guard{}} }

// starve tries to start a process while there are descriptors for its streams and for nothing else.
func starve(s *procgroup.Starter) {
	const streams = 5
	var limit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	few := limit
	few.Cur = 64
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few)
	var all []*os.File
	for f, err := os.Open(os.DevNull); err == nil; f, err = os.Open(os.DevNull) {
		all = append(all, f)
	}
	for _, f := range all[:streams] {
		_ = f.Close()
	}
	_, err := s.Start(&procgroup.Config{Path: os.Args[0], Args: []string{"process", "sleep"}})
	if err == nil || s.Guard.Err() == nil {
		fmt.Println("there are enough")
	}
	for _, f := range all[streams:] {
		_ = f.Close()
	}
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// parent starts a process that does what some words say, as a host does.
func parent(s *procgroup.Starter, cfg procgroup.Config, words ...string) {
	cfg.Path, cfg.Args = os.Args[0], append([]string{"process"}, words...)
	cfg.Output = func(l procgroup.Line) { fmt.Println(l.Text) }
	if _, err := s.Start(&cfg); err != nil {
		fmt.Println(err)
	}
}

// opened starts this program from an open file, which prints what it reads from its fourth descriptor.
func opened() error {
	program, err := os.Open(os.Args[0])
	if err != nil {
		return err
	}
	given, give, err := os.Pipe()
	if err != nil {
		return err
	}
	_, _ = give.WriteString("it runs with what it is given")
	p, err := new(procgroup.Starter).Start(&procgroup.Config{
		Path: "/no/such/program", Executable: program, Args: []string{"process", "inherited"},
		Files: []*os.File{given}, Output: func(l procgroup.Line) { fmt.Println(l.Text) },
	})
	if err != nil {
		return err
	}
	<-p.Done()
	return nil
}

// collector collects lines.
type collector struct{ lines chan procgroup.Line }

func newCollector() *collector { return &collector{lines: make(chan procgroup.Line, 1<<16)} }

func (c *collector) take(l procgroup.Line) { c.lines <- l }

// next returns the next line.
func (c *collector) next(t *testing.T) procgroup.Line {
	t.Helper()
	select {
	case l := <-c.lines:
		return l
	case <-time.After(wait):
		t.Fatal("no line came")
		return procgroup.Line{}
	}
}

// sleeper returns the process id that the next line "sleeping PID" names.
func (c *collector) sleeper(t *testing.T) int {
	t.Helper()
	return pidOf(t, c.next(t).Text)
}

func pidOf(t *testing.T, line string) int {
	t.Helper()
	number, ok := strings.CutPrefix(line, "sleeping ")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil {
		t.Fatalf("line %q", line)
	}
	return pid
}

// begin starts this program with words.
func begin(t *testing.T, s *procgroup.Starter, cfg procgroup.Config, words ...string) (*procgroup.Process, *collector) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := newCollector()
	cfg.Path, cfg.Args, cfg.Output = path, append([]string{"process"}, words...), out.take
	p, err := s.Start(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Kill()
		<-p.Done()
	})
	return p, out
}

// ended waits for the end of a process.
func ended(t *testing.T, p *procgroup.Process) procgroup.Exit {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(wait):
		t.Fatal("the process does not end")
	}
	return p.Exit()
}

// gone waits until nobody runs under a process id any more.
func gone(t *testing.T, what string, pid int) {
	t.Helper()
	for deadline := time.Now().Add(wait); alive(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("%s, process %d, is still there", what, pid)
		}
		time.Sleep(2 * time.Millisecond) // polls the system's table of processes
	}
}

// alive reports whether a process runs; one that only waits to be reaped does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !os.IsNotExist(err)
	}
	defer func() { _ = f.Close() }()
	line, _ := bufio.NewReader(f).ReadString('\n')
	_, state, _ := strings.Cut(line, ") ")
	return !strings.HasPrefix(state, "Z") && state != ""
}
