//go:build linux

package procgroup_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
)

// delegated returns a control group in which this test may make others.
func delegated(t *testing.T) string {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		dir, err := os.MkdirTemp(root, "procgroup-test-") //nolint:usetesting // a control group
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err == nil {
			return dir
		}
	}
	t.Skip("no control group of version 2 is delegated to this user")
	return ""
}

// empty waits until a control group has no other in it.
func empty(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(wait); ; time.Sleep(2 * time.Millisecond) { // polls the system
		left, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q are left", left)
		}
	}
}

// What leaves the group ends with the control group, however the process ends.
func TestCgroupEndsWhatLeftTheGroup(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		words []string // what it does when its daemon runs
		end   func(p *procgroup.Process, ask *os.File)
	}{
		"it is killed":       {[]string{"sleep"}, func(p *procgroup.Process, _ *os.File) { _ = p.Kill() }},
		"it ends by itself":  {[]string{"inherited", "exit=0"}, func(_ *procgroup.Process, ask *os.File) { _ = ask.Close() }},
		"it is asked to end": {[]string{"sleep"}, func(p *procgroup.Process, _ *os.File) { _ = p.Terminate() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := delegated(t)
			theirs, ours, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = theirs.Close(), ours.Close() }()
			s := &procgroup.Starter{Guard: &procgroup.Guard{}}
			t.Cleanup(s.Guard.Close)
			p, out := begin(t, s, procgroup.Config{Cgroup: dir, Files: []*os.File{theirs}}, append([]string{"daemon"}, tt.words...)...)
			pids := []int{out.sleeper(t)}
			if tt.words[0] == "sleep" {
				pids = append(pids, out.sleeper(t))
			}
			tt.end(p, ours)
			ended(t, p)
			for _, pid := range pids {
				gone(t, "what it started", pid)
			}
			empty(t, dir)
		})
	}
}

// The guard ends a control group whose keeper was killed.
func TestGuardEndsCgroups(t *testing.T) {
	t.Parallel()
	dir := delegated(t)
	p, out := begin(t, &procgroup.Starter{}, procgroup.Config{}, "keeper="+dir, "sleep")
	pids := []int{out.sleeper(t), out.sleeper(t), out.sleeper(t)}
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		gone(t, "what it started", pid)
	}
	empty(t, dir)
}

func TestCgroupIsRefused(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{"relative": "a", "white space": "/sys/fs/cgroup/a b", "no control group": t.TempDir()} {
		path, _ := os.Executable()
		if _, err := new(procgroup.Starter).Start(&procgroup.Config{Path: path, Cgroup: dir}); !errors.Is(err, procgroup.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
