package platform_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// hostMain is a host that lives up to a moment, and until SIGTERM after that. Its arguments are a
// word that all processes have which come of it, the number of the moment, and the file that says
// that it is there.
func hostMain(ctx context.Context, args []string) error {
	number, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
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
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- h.ListenAndServe(ctx) }()
	for h.Addr() == "" {
		time.Sleep(time.Millisecond) // a host has no other way to say so
	}
	if err := moments[number].live(ctx, h, args[0], args[2]); err != nil {
		return err
	}
	return <-served
}

// A host that is killed leaves no process behind, neither plugins nor what they started, and no
// file that the next host does not take away, which works as any other.
func TestKilledHostLeavesNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "killed") //nolint:usetesting // short enough for the address of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for i, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			token := fmt.Sprintf("host-%d-%d-", i, os.Getpid())
			host := hostProcess(t, dir, i, token)
			awaitProcess(t, "plugin", m.victim(token))
			awaitProcess(t, "sleep", m.victim(token))
			if err := host.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = host.Wait()
			allGone(t, token)
		})
	}
	inService := slices.IndexFunc(moments, func(m moment) bool { return m.name == "in service" })
	next := hostProcess(t, dir, inService, fmt.Sprintf("host-next-%d-", os.Getpid()))
	if roots, err := filepath.Glob(dir + "/connectplugin-*"); err != nil || len(roots) != 1 {
		t.Errorf("while the next host lives: %q, %v", roots, err)
	}
	if err := errors.Join(next.Process.Signal(syscall.SIGTERM), next.Wait()); err != nil {
		t.Errorf("the next host: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// hostProcess starts a host, with a directory for temporary files, and returns when its moment is
// there.
func hostProcess(t *testing.T, dir string, number int, token string) *exec.Cmd {
	t.Helper()
	path, _ := program()
	mark := filepath.Join(t.TempDir(), "mark")
	cmd := exec.CommandContext(t.Context(), path, "host", token, strconv.Itoa(number), mark)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var out lockedText
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	hosttest.Eventually(t, "the moment", func() bool { return exists(mark) })
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A plugin's child that is killed ends nothing. A plugin that is killed is started again or
// missing, as whoever wanted it is told, nothing of it is left, and the next one works.
func TestKilledPluginLeavesNothing(t *testing.T) {
	t.Parallel()
	for i, m := range moments {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			h, token, mark := start(t, "echo"), fmt.Sprintf("plugin-%d-%d-", i, os.Getpid()), filepath.Join(t.TempDir(), "mark")
			lived := make(chan error, 1)
			go func() { lived <- m.live(t.Context(), h.Host, token, mark) }()
			hosttest.Eventually(t, "the moment", func() bool { return exists(mark) })
			killAt(t, m.victim(token))
			err := <-lived
			if failed := m.word != "" || m.next != "" && !m.call; failed != (err != nil && strings.Contains(err.Error(), "ended before it was healthy")) {
				t.Errorf("whoever wanted it: %v", err)
			}
			if m.name != "shutdown, while it drains" {
				recovers(t, h, m, token)
			}
			allGone(t, token)
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
}

// killAt kills first the child of a plugin, and then the plugin.
func killAt(t *testing.T, word string) {
	t.Helper()
	plugin, child := awaitProcess(t, "plugin", word), awaitProcess(t, "sleep", word)
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	hosttest.Eventually(t, "the child is gone", func() bool { return len(playing(t, "sleep", word)) == 0 })
	if !slices.Contains(playing(t, "plugin", word), plugin) {
		t.Error("the plugin ended with its child")
	}
	if err := syscall.Kill(plugin, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// recovers calls the plugin after one was killed, and stops it.
func recovers(t *testing.T, h *hosttest.Host, m moment, token string) {
	t.Helper()
	if m.next == "" { // otherwise one of the two goes on
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": m.spec("", secondChild+token, "")})
	}
	hosttest.Eventually(t, "it works", func() bool {
		url, client, err := h.Launcher().GetServiceClient("echo", "echo")
		if err != nil {
			return false
		}
		_, err = connect.NewClient[text, text](client, url+echoSay).CallUnary(t.Context(), connect.NewRequest(&text{}))
		return err == nil
	})
	if got := h.Plugins(); len(got) != 1 {
		t.Errorf("plugins %+v", got)
	}
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Error(err)
	}
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
