package procgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
)

// Starter starts processes, all of them from one thread, which it keeps while one of them
// lives. The zero value is ready; it is safe for concurrent use. It needs no end: with the
// last process its thread is gone.
type Starter struct {
	// Guard, where it is set, ends the groups of the processes if this process is killed.
	// It must not change once a process was started.
	Guard *Guard

	mu     sync.Mutex
	live   int
	thread chan startRequest // nil while nothing lives
}

type startRequest struct {
	cfg    *Config
	cgroup *cgroup // nil for none
	files  []*os.File
	answer chan<- startAnswer
}

type startAnswer struct {
	proc *os.Process
	err  error
}

// Start starts a process. The error names what is wrong. The process belongs to the
// caller, who ends it with [Process.Stop] and may wait for [Process.Done].
func (s *Starter) Start(cfg *Config) (*Process, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ends, err := openStreams()
	if err != nil {
		return nil, err
	}
	own, err := s.controlGroup(cfg)
	if err != nil {
		ends.closeChild()
		ends.closeParent()
		return nil, err
	}
	if s.Guard != nil {
		s.Guard.ready()
	}
	thread := s.hold()
	answer := make(chan startAnswer, 1)
	thread <- startRequest{cfg: cfg, cgroup: own, files: append(ends.child(), cfg.Files...), answer: answer}
	a := <-answer
	ends.closeChild()
	if a.err != nil {
		s.release()
		ends.closeParent()
		s.removeControlGroup(own)
		return nil, fmt.Errorf("start %s: %w", cfg.Path, inWords(a.err, cfg.Dir))
	}
	p := &Process{proc: a.proc, io: ends, done: make(chan struct{}), guard: s.Guard}
	if s.Guard != nil {
		s.Guard.add(strconv.Itoa(a.proc.Pid))
	}
	p.read(cfg.Output)
	go func() {
		p.watch(func() { s.removeControlGroup(own) })
		s.release()
		close(p.done)
	}()
	return p, nil
}

// inWords leaves out the path that the system was given, which nobody knows, and says what it means by
// a format, and that the directory is what does not do, which the system says of the program.
func inWords(err error, dir string) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		err = e.Err
	}
	if errors.Is(err, syscall.ENOEXEC) {
		err = fmt.Errorf("%w: it is no program for this system; of a text, start the interpreter as the program", err)
	}
	if info, statErr := os.Stat(dir); dir != "" && (statErr != nil || !info.IsDir()) {
		err = fmt.Errorf("%w: its working directory would be %s", err, dir)
	}
	return err
}

// controlGroup makes the control group of a process, nil where it has none. Its guard knows it
// before anything is in it.
func (s *Starter) controlGroup(cfg *Config) (*cgroup, error) {
	if cfg.Cgroup == "" {
		return nil, nil //nolint:nilnil // documented
	}
	own, err := newCgroup(cfg.Cgroup)
	if err == nil && s.Guard != nil {
		s.Guard.add(own.dir)
	}
	return own, err
}

func (s *Starter) removeControlGroup(own *cgroup) {
	if own == nil {
		return
	}
	own.remove()
	if s.Guard != nil {
		s.Guard.remove(own.dir)
	}
}

// hold keeps the thread and returns the way to it.
func (s *Starter) hold() chan<- startRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live++; s.thread == nil {
		s.thread = make(chan startRequest)
		go serveStarts(s.thread)
	}
	return s.thread
}

// release lets the thread go if nothing needs it any more.
func (s *Starter) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live--; s.live == 0 {
		close(s.thread)
		s.thread = nil
	}
}

// serveStarts forks on a thread of its own until requests is closed. The thread goes back to
// the runtime then: if it ended, so would whatever else was started on it before, by others,
// with a death signal.
func serveStarts(requests <-chan startRequest) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for r := range requests {
		proc, err := start(r.cfg, r.files, r.cgroup)
		r.answer <- startAnswer{proc: proc, err: err}
	}
}

// streams are the ends of a process's stdin, stdout and stderr.
type streams struct {
	stdin          *os.File
	stdout, stderr *os.File // ours
	childOut       *os.File
	childErr       *os.File
}

func openStreams() (*streams, error) {
	var s streams
	var errs [3]error
	s.stdin, errs[0] = os.Open(os.DevNull)
	s.stdout, s.childOut, errs[1] = os.Pipe()
	s.stderr, s.childErr, errs[2] = os.Pipe()
	if err := errors.Join(errs[:]...); err != nil {
		s.closeChild()
		s.closeParent()
		return nil, fmt.Errorf("open the streams of a process: %w", err)
	}
	return &s, nil
}

func (s *streams) child() []*os.File { return []*os.File{s.stdin, s.childOut, s.childErr} }

func (s *streams) closeChild() { closeFiles(s.stdin, s.childOut, s.childErr) }

func (s *streams) closeParent() { closeFiles(s.stdout, s.stderr) }

func closeFiles(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // nil answers with an error
	}
}
