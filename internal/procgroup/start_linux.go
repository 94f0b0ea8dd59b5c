package procgroup

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// executableFD is far above every descriptor that a process inherits, so that nothing takes its
// place before the program is executed.
const executableFD = 1 << 10

// lowExecutableFD is the lowest one of which that is true: to give a process so many files os.StartProcess moves each
// of them, and its own pipe, behind them first.
func lowExecutableFD(files int) uintptr { return 2*uintptr(files) + 2 }

func start(cfg *Config, files []*os.File, own *cgroup) (*os.Process, error) {
	path := cfg.Path
	if cfg.Executable != nil {
		fd, err := duplicate(cfg.Executable, len(files))
		if err != nil {
			return nil, err
		}
		defer func() { _ = syscall.Close(fd) }()
		path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	attr := &os.ProcAttr{Dir: cfg.Dir, Env: cfg.Env, Files: files, Sys: &syscall.SysProcAttr{
		Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: credential(cfg.Credential), Ptrace: len(cfg.Rlimits) > 0,
	}}
	if own != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(own.file.Fd())
	}
	if attr.Env == nil {
		attr.Env = []string{}
	}
	proc, err := os.StartProcess(path, append([]string{cfg.Path}, cfg.Args...), attr)
	if err != nil {
		return nil, err //nolint:wrapcheck // Start wraps it with the path that people know
	}
	if len(cfg.Rlimits) == 0 {
		return proc, nil
	}
	if err := limit(proc.Pid, cfg.Rlimits); err != nil {
		_ = proc.Kill()
		_, _ = proc.Wait()
		return nil, err
	}
	return proc, nil
}

// duplicate returns a descriptor of the file that no other program inherits, nor takes the place of one of so many files
// that a process gets.
func duplicate(f *os.File, files int) (int, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("executable: %w", err)
	}
	var fd uintptr
	var errno syscall.Errno
	err = conn.Control(func(from uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, executableFD)
		if errno == syscall.EINVAL { // this process may not have as many
			fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, from, syscall.F_DUPFD_CLOEXEC, lowExecutableFD(files))
		}
	})
	switch {
	case err == nil && errno == syscall.EMFILE:
		err = fmt.Errorf("this process has no descriptors left; raise its limit (ulimit -n): %w", errno)
	case err == nil && errno != 0:
		err = errno
	}
	if err != nil {
		return 0, fmt.Errorf("executable: %w", err)
	}
	return int(fd), nil
}

// limit sets the limits of a process that stands at the first instruction of its program,
// and lets it go. It has to run on the thread that started the process, which traces it.
func limit(pid int, limits []Rlimit) error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || !status.Stopped() {
			return fmt.Errorf("resource limits: the process did not stop before its program: %v, %w", status, err)
		}
		break
	}
	for _, l := range limits {
		value := syscall.Rlimit{Cur: l.Soft, Max: l.Hard}
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), uintptr(l.Resource),
			uintptr(unsafe.Pointer(&value)), 0, 0, 0) //nolint:gosec // the kernel reads it
		if errno != 0 {
			return fmt.Errorf("resource limit %d: %w", l.Resource, errno)
		}
	}
	if err := syscall.PtraceDetach(pid); err != nil {
		return fmt.Errorf("resource limits: detach: %w", err)
	}
	return nil
}
