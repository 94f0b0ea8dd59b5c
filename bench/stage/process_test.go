package stage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestMain is a process that a test has started, and says how the scheduler sees it: by which policy, and how nice it is.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != "-role" {
		os.Exit(m.Run())
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err == nil {
		_, after, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(after)) // from the third of proc_pid_stat(5) on
		err = Tell(fields[41-3] + " " + fields[19-3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Who yields the processors has them when nobody else wants them, or where the system has no program for that is less important.
func TestStartYielding(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how important a process is says each system in its own way")
	}
	const idle = "5 0" // SCHED_IDLE
	for name, tt := range map[string]struct {
		start func(context.Context, string, ...string) (*Process, error)
		has   string // programs
		want  string
	}{
		"who does not": {start: Start, want: "0 0"},
		"idle":         {start: StartYielding, has: "chrt", want: idle},
		"nice":         {start: StartYielding, has: "nice", want: "0 19"},
		"neither":      {start: StartYielding, want: "0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.has != "" {
				program, err := exec.LookPath(tt.has)
				if err != nil {
					t.Skip(err)
				}
				if err := os.Symlink(program, filepath.Join(dir, tt.has)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			p, err := tt.start(t.Context(), "any")
			if err != nil {
				t.Fatal(err)
			}
			if p.Said != tt.want {
				t.Errorf("policy and niceness %q, want %q", p.Said, tt.want)
			}
			if _, err := p.End(); err != nil {
				t.Error(err)
			}
		})
	}
}
