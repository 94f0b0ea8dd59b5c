package platform_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// versions makes programs that differ in what nobody reads of them.
type versions struct {
	dir   string
	bytes []byte
	made  int
}

func newVersions(t *testing.T) *versions {
	t.Helper()
	path, _ := program()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &versions{dir: t.TempDir(), bytes: data}
}

// next is the spec of another version.
func (v *versions) next(t *testing.T) connectplugin.PluginSpec {
	t.Helper()
	v.made++
	data := append(bytes.Clone(v.bytes), strconv.Itoa(v.made)...)
	sum := sha256.Sum256(data)
	sp := spec()
	sp.BinaryPath, sp.Checksum = filepath.Join(v.dir, "program"), hex.EncodeToString(sum[:])
	if err := os.Remove(sp.BinaryPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(sp.BinaryPath, data, 0o700); err != nil {
		t.Fatal(err)
	}
	return sp
}

// programsKept is how many programs this process has in memory.
func programsKept(t *testing.T) (n int) {
	t.Helper()
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range open {
		if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, "/memfd:plugin") {
			n++
		}
	}
	return n
}

// A host keeps the programs that it may start again, and no version that was replaced: each takes as much memory as its file is
// long. What it keeps needs no file.
func TestProgramsThatNobodyStartsAreNotKept(t *testing.T) {
	if !hosttest.InChild(t) { // whose descriptors are no other test's
		return
	}
	const rounds = 4
	h, made := start(t, "echo", "other"), newVersions(t)
	other := spec("type=other")
	other.Provides = []string{"other"}
	for range rounds {
		sp := made.next(t)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp, "other": other})
		if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Launcher().GetService("other", "other"); err != nil {
			t.Fatal(err)
		}
	}
	if n := programsKept(t); n > 3 { // of the other plugin, of this one, and of the version before
		t.Errorf("%d programs are kept after %d versions", n, rounds)
	}
	if err := os.Remove(filepath.Join(made.dir, "program")); err != nil {
		t.Fatal(err)
	}
	before := launched(t, h, "echo").Pid
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "it is started again, from what is kept", func() bool {
		now := launched(t, h, "echo")
		return now.State == connectplugin.LaunchRunning && now.Pid != before
	})
}

// What clears the directory for temporary files takes the sockets with it: the next start, and a replacement, make another place.
func TestSocketsThatWereTakenAwayAreMadeAgain(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	for name, again := range map[string]func() error{
		"replaced": func() error { return h.Launcher().Replace(t.Context(), "echo") },
		"killed":   func() error { return syscall.Kill(launched(t, h, "echo").Pid, syscall.SIGKILL) },
	} {
		before := launched(t, h, "echo").Pid
		if err := os.RemoveAll(filepath.Dir(filepath.Dir(socketOf(h)))); err != nil {
			t.Fatal(err)
		}
		if err := again(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		hosttest.Eventually(t, "it is there again, "+name, func() bool {
			now := launched(t, h, "echo")
			return now.State == connectplugin.LaunchRunning && now.Pid != before
		})
		if got, err := call("x"); got != "x" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A spec without a checksum runs what it found first, and says so where an operator may think that the file's next program runs.
func TestAProgramThatWasReplacedUnverifiedIsTold(t *testing.T) {
	t.Parallel()
	const said = "the file of a plugin's program has changed, and what it held at the first launch runs on"
	for name, changes := range map[string]bool{"changed": true, "as it was": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, made := &hosttest.Buffer{}, newVersions(t)
			h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}}
				c.Logger, c.Limits.DialTimeout = slog.New(slog.NewTextHandler(log, nil)), wait
			})
			sp := made.next(t)
			sp.Checksum = ""
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			call := caller(t, h, "echo")
			before, err := call("pid")
			if err != nil {
				t.Fatal(err)
			}
			if changes {
				made.next(t)
			}
			if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
				t.Fatal(err)
			}
			if after, err := call("pid"); err != nil || after == before {
				t.Errorf("process %s, %v, before %s", after, err, before)
			}
			if strings.Contains(log.String(), said) != changes {
				t.Errorf("the log says %s", log.String())
			}
		})
	}
}
