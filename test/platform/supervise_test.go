package platform_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestCrashedPluginIsStartedAgain(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	exits := make(chan connectplugin.PluginExit, 16)
	sp := spec()
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond}
	sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	before, err := call("pid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call("crash"); err == nil {
		t.Error("the call that crashed it succeeded")
	}
	exit := <-exits
	if exit.ExitCode != 3 || exit.Requested || exit.RestartAt.IsZero() || exit.RuntimeID == "" || !slices.Contains(exit.Output, "last words") {
		t.Errorf("exit %+v", exit)
	}
	hosttest.Eventually(t, "it runs again", func() bool { return launched(t, h, "echo").State == connectplugin.LaunchRunning })
	after, err := call("pid") // the same client follows
	if err != nil || after == before {
		t.Errorf("process %s, then %s, %v", before, after, err)
	}
	if s := launched(t, h, "echo"); s.Restarts != 1 || s.LastExit == nil || s.LastExit.ExitCode != 3 {
		t.Errorf("status %+v", s)
	}
}

func TestCrashLoopOpensTheBreaker(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond, MaxFailures: 2, Window: time.Hour, Cooldown: time.Hour}
	exits := make(chan connectplugin.PluginExit, 16)
	sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	for i := range 2 {
		hosttest.Eventually(t, "it runs", func() bool { return launched(t, h, "echo").State == connectplugin.LaunchRunning })
		if _, err := call("crash"); err == nil {
			t.Fatal("the call that crashed it succeeded")
		}
		if exit := <-exits; exit.CrashLoop != (i == 1) {
			t.Errorf("exit %d: %+v", i+1, exit)
		}
	}
	hosttest.Eventually(t, "the breaker is open", func() bool { return launched(t, h, "echo").State == connectplugin.LaunchBroken })
	s := launched(t, h, "echo")
	if s.Failures != 2 || s.NextStart.Before(time.Now().Add(time.Minute)) || !strings.Contains(s.Err, "last words") {
		t.Errorf("status %+v", s)
	}
	if _, err := h.Launcher().GetService("echo", "echo"); !errors.Is(err, connectplugin.ErrPluginNotRunning) || !strings.Contains(err.Error(), "failed 2 times") {
		t.Errorf("whoever asks is told %v", err)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	caller(t, h, "echo") // starts anew
}

// A plugin that failed too often is replaced by one that does not, without waiting for its next
// start, and one that is no better changes nothing.
func TestReplacementEndsACrashLoop(t *testing.T) {
	t.Parallel()
	for state, restart := range map[connectplugin.LaunchState]connectplugin.RestartPolicy{
		connectplugin.LaunchBroken:  {MinBackoff: time.Millisecond, MaxFailures: 1, Window: time.Hour, Cooldown: time.Hour},
		connectplugin.LaunchBackoff: {MinBackoff: 1000 * time.Hour, MaxBackoff: 1000 * time.Hour},
	} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			sp := spec()
			sp.Restart = restart
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			call := caller(t, h, "echo")
			if _, err := call("crash"); err == nil {
				t.Fatal("the call that crashed it succeeded")
			}
			hosttest.Eventually(t, "it is down", func() bool { return launched(t, h, "echo").State == state })
			before := launched(t, h, "echo")
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("crash=no better")})
			if err := h.Launcher().Replace(t.Context(), "echo"); err == nil || !strings.Contains(err.Error(), "no better") {
				t.Errorf("one that is no better: %v", err)
			}
			if s := launched(t, h, "echo"); s.State != state || !s.NextStart.Equal(before.NextStart) {
				t.Errorf("status %+v, then %+v", before, s)
			}
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
			if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
				t.Fatal(err)
			}
			if got, err := call("x"); got != "x" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if s := launched(t, h, "echo"); s.State != connectplugin.LaunchRunning || s.Pid == 0 || s.Failures != 0 {
				t.Errorf("status %+v", s)
			}
			// what failed before counts no more, and when to start again is as the new spec says
			if _, err := call("crash"); err == nil {
				t.Fatal("the call that crashed it succeeded")
			}
			hosttest.Eventually(t, "it is started again", func() bool {
				s := launched(t, h, "echo")
				return s.State == connectplugin.LaunchRunning && s.Failures == 1
			})
			if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

func TestRestartNever(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Restart.Never = true
	exits := make(chan connectplugin.PluginExit, 1)
	sp.OnExit = func(e connectplugin.PluginExit) { exits <- e }
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	_, _ = caller(t, h, "echo")("crash")
	if exit := <-exits; !exit.RestartAt.IsZero() {
		t.Errorf("exit %+v", exit)
	}
	hosttest.Eventually(t, "it is gone", func() bool { return len(h.Plugins()) == 0 })
}

// A plugin that policy does not know is refused, which is said once, and why.
func TestUnknownPluginIsToldOnce(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"stranger": spec()})
	err := h.Launcher().Start(t.Context())
	if err == nil || strings.Count(err.Error(), "the host refused it") != 1 || !strings.Contains(err.Error(), "policy does not know") {
		t.Errorf("%v", err)
	}
}

func TestFailedStartIsRolledBackWhole(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ word, want string }{
		"it crashes":      {"crash=no database", "no database"},
		"it hangs":        {"hang", "not healthy in time"},
		"it is unhealthy": {"unhealthy=no disk", "not healthy in time"},
		"it prints":       {"print=what it said last", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			token := "failed-" + strings.ReplaceAll(name, " ", "-")
			sp := spec("child="+token, tt.word)
			if tt.want != "no database" && tt.want != "" {
				sp.ReadyTimeout = 3 * time.Second
			}
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			_, err := h.Launcher().GetService("echo", "echo")
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one that says %q", err, tt.want)
			}
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
			allGone(t, token)
		})
	}
}

func TestOutputOfAPluginBlocksNobody(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("flood", "print=the end")})
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestManyWantTheSamePlugin(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	var wanting sync.WaitGroup
	for range 16 {
		wanting.Go(func() {
			if _, err := h.Launcher().GetService("echo", "echo"); err != nil {
				t.Error(err)
			}
		})
	}
	wanting.Wait()
	if got := h.Plugins(); len(got) != 1 {
		t.Errorf("%d plugins", len(got))
	}
}

func TestRevokedSelfIDStaysOut(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxFailures: 1000}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	if n := h.RevokeSelf("echo"); n != 1 {
		t.Errorf("%d identities ended", n)
	}
	if _, err := call("x"); err == nil {
		t.Error("it answers")
	}
	hosttest.Eventually(t, "it is down", func() bool {
		s := launched(t, h, "echo")
		return s.State == connectplugin.LaunchBackoff && strings.Contains(s.Err, "revoked")
	})
	if !h.Readmit("echo") || h.Readmit("echo") {
		t.Error("Readmit says something else")
	}
	hosttest.Eventually(t, "it is back", func() bool {
		_, err := call("x")
		return err == nil
	})
}

func TestHostShutdownStopsWhatItLaunched(t *testing.T) {
	t.Parallel()
	h := start(t, "echo", "other")
	token := "shutdown-" + time.Now().Format("150405.000000")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("child=" + token), "other": spec("deaf", "type=other", "child="+token)})
	for name, sp := range map[string]string{"echo": "echo"} {
		if _, err := h.Launcher().GetService(name, sp); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = h.Shutdown(ctx) // how long it took is no matter
	allGone(t, token)
	if _, err := h.Launcher().GetService("echo", "echo"); !errors.Is(err, connectplugin.ErrHostClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// What left the plugin's process group ends with it where a control group is delegated.
func TestCgroupEndsWhatThePluginStarted(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/sys/fs/cgroup/unified", "platform-test-") //nolint:usetesting // a control group
	if err != nil {
		if dir, err = os.MkdirTemp("/sys/fs/cgroup", "platform-test-"); err != nil { //nolint:usetesting // as above
			t.Skip("no control group is delegated to this user")
		}
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("something is left in the control group: %v", err)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		t.Skip("control groups are not of version 2 here")
	}
	h := start(t, "echo")
	token := "daemon-" + strconv.Itoa(os.Getpid()) + "-"
	sp := spec("daemon=" + token)
	sp.Cgroup, sp.Restart.MinBackoff = dir, time.Millisecond
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	before := running(t, token)
	_, _ = call("crash")
	hosttest.Eventually(t, "it runs again", func() bool { _, err := call("hello"); return err == nil })
	for _, pid := range before {
		if slices.Contains(running(t, token), pid) {
			t.Errorf("%d outlives the instance that started it", pid)
		}
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	allGone(t, token)
	sp.Cgroup = "relative"
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if _, err := h.Launcher().GetDefaultService("echo"); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "Cgroup") {
		t.Errorf("a path that is not absolute: %v", err)
	}
}

// An operator mends a plugin that crashes in a loop: the spec as it is now is started at once, and
// counts afresh; one that fails, too, is told.
func TestReplaceMendsACrashLoop(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Hour, MaxFailures: 1, Window: time.Hour, Cooldown: time.Hour}
	configure := func(words ...string) {
		next := spec(words...)
		next.Restart, next.Env = sp.Restart, []string{"MENDED=1"}
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": next})
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	if _, err := call("crash"); err == nil {
		t.Fatal("the call that crashed it succeeded")
	}
	broken := func() bool { return launched(t, h, "echo").State == connectplugin.LaunchBroken }
	hosttest.Eventually(t, "the breaker is open", broken)
	configure("crash=no database")
	if err := h.Launcher().Replace(t.Context(), "echo"); err == nil || !strings.Contains(err.Error(), "no database") {
		t.Errorf("replaced by one that fails: %v", err)
	}
	hosttest.Eventually(t, "the breaker is open", broken)
	configure()
	if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
		t.Fatalf("replaced by a good one: %v", err)
	}
	if env, err := call("env"); err != nil || !strings.Contains(env, "MENDED=1") {
		t.Errorf("it runs with %q, %v", env, err)
	}
	if s := launched(t, h, "echo"); s.State != connectplugin.LaunchRunning || s.Failures != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestRestartTakesTheSpecOfNow(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec()
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	before := launched(t, h, "echo").Restarts
	sp.Env = []string{"MENDED=1"}
	sp.Restart.MaxFailures, sp.Restart.Window, sp.Restart.Cooldown = 2, time.Hour, time.Hour
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if env, err := call("env"); err != nil || strings.Contains(env, "MENDED") {
		t.Errorf("it runs with %q, %v, before it is started again", env, err)
	}
	_, _ = call("crash")
	hosttest.Eventually(t, "it runs again", func() bool {
		s := launched(t, h, "echo")
		return s.State == connectplugin.LaunchRunning && s.Restarts > before
	})
	if env, err := call("env"); err != nil || !strings.Contains(env, "MENDED=1") {
		t.Errorf("it was started again with %q, %v", env, err)
	}
	_, _ = call("crash")
	hosttest.Eventually(t, "the second failure is too many, as the new spec says", func() bool {
		return launched(t, h, "echo").State == connectplugin.LaunchBroken
	})
}
