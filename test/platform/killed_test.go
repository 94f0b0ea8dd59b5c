package platform_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// hostMain is a host that launches, replaces and stops plugins until it is killed. Its
// argument marks all processes that come of it.
func hostMain(ctx context.Context, args []string) error {
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return err
	}
	h, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Addr: "127.0.0.1:0",
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}},
	})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- h.ListenAndServe(ctx) }()
	for h.Addr() == "" {
		time.Sleep(time.Millisecond) // a host has no other way to say so
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("child=" + args[0])})
	for {
		if _, err := h.Launcher().GetService("echo", "echo"); err != nil {
			return err
		}
		fmt.Println("launched")
		if err := h.Launcher().Replace(ctx, "echo"); err != nil {
			return err
		}
		fmt.Println("replaced")
		if err := h.Launcher().Stop(ctx, "echo"); err != nil {
			return err
		}
		fmt.Println("stopped")
	}
}

// A host that is killed at any moment leaves no process behind, neither plugins nor what
// plugins started.
func TestKilledHostLeavesNothing(t *testing.T) {
	t.Parallel()
	path, _ := program()
	for moment := range 12 {
		token := "killed-host-" + strconv.Itoa(moment) + "-" + strconv.Itoa(os.Getpid()) + "-"
		cmd := exec.CommandContext(t.Context(), path, "host", token)
		var out lockedText
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Somewhere in the first rounds of launch, replace and stop.
		hosttest.Eventually(t, "the host is at work", func() bool {
			return moment == 0 || strings.Count(out.String(), "\n") >= moment/3
		})
		time.Sleep(rand.N(200 * time.Millisecond)) // any moment
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		allGone(t, token)
		if t.Failed() {
			t.Log(out.String())
			return
		}
	}
}

// A plugin that is killed at any moment is replaced by its next instance, and nothing of it
// is left.
func TestKilledPluginLeavesNothing(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	token := "killed-plugin-" + strconv.Itoa(os.Getpid()) + "-"
	sp := spec("child=" + token)
	sp.Restart = connectplugin.RestartPolicy{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond, MaxFailures: 1000}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	var killing sync.WaitGroup
	stop := make(chan struct{})
	killing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(rand.N(300 * time.Millisecond)):
			}
			for _, pid := range running(t, token) { // the plugin or its child, in the middle of whatever
				if rand.N(2) == 0 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	})
	for i := range 12 {
		switch i % 3 {
		case 0:
			_, _ = h.Launcher().GetService("echo", "echo")
		case 1:
			_ = h.Launcher().Replace(t.Context(), "echo")
		case 2:
			_ = h.Launcher().Stop(t.Context(), "echo")
		}
	}
	close(stop)
	killing.Wait()
	hosttest.Eventually(t, "it recovers", func() bool {
		_, err := h.Launcher().GetService("echo", "echo")
		return err == nil
	})
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	if got := h.Plugins(); len(got) != 1 {
		t.Errorf("plugins %+v", got)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Error(err)
	}
	allGone(t, token)
}

// lockedText collects what a process prints.
type lockedText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
