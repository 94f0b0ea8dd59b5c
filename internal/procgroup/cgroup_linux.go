package procgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	cgroupPrefix = "plugin-"
	cgroupKill   = "cgroup.kill"
	cgroupLook   = 2 * time.Millisecond // between looks whether the last process is gone
)

// cgroup is the control group of one process and of all that comes of it.
type cgroup struct {
	dir  string
	file *os.File
}

// newCgroup makes a control group in another, after it removed those of processes that are
// gone: whoever made them was killed.
func newCgroup(parent string) (*cgroup, error) {
	if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err != nil {
		return nil, fmt.Errorf("%w: Cgroup: %q is no control group: %w", ErrConfig, parent, err)
	}
	sweepCgroups(parent)
	dir, err := os.MkdirTemp(parent, cgroupPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, fmt.Errorf("control group: is %s delegated to this user? %w", parent, err)
	}
	c := &cgroup{dir: dir}
	if _, err = os.Stat(filepath.Join(dir, cgroupKill)); err != nil {
		err = fmt.Errorf("control group: %w: it is not of version 2, or Linux is older than 5.14", ErrUnsupported)
	} else {
		c.file, err = os.Open(dir) //nolint:gosec // just made
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return c, nil
}

// remove kills everything in the group and removes it.
func (c *cgroup) remove() {
	_ = c.file.Close()
	deadline := time.Now().Add(killWait)
	look := time.NewTicker(cgroupLook)
	defer look.Stop()
	for killCgroup(c.dir) != nil && time.Now().Before(deadline) {
		<-look.C
	}
}

// killCgroup kills what is in a group and removes it. An error says that the last of it is not
// gone yet.
func killCgroup(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	_ = os.WriteFile(filepath.Join(dir, cgroupKill), []byte("1"), 0)
	return err //nolint:wrapcheck // only whether there is one matters
}

// sweepCgroups kills and removes the groups whose makers are gone.
func sweepCgroups(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, cgroupPrefix+"*"))
	for _, dir := range dirs {
		maker, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if pid, err := strconv.Atoi(maker); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = killCgroup(dir)
		}
	}
}
