package platform_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// socketOf returns the path of a launched plugin's socket, empty where it listens on a port.
func socketOf(h *hosttest.Host) string {
	endpoint := h.Plugins()[0].Endpoint
	path, ok := strings.CutPrefix(endpoint, "unix:")
	if !ok {
		return ""
	}
	path, _, _ = strings.Cut(path, "#")
	return path
}

// A launched plugin listens where nobody else may come, and nothing of that stays.
func TestAudit_H58_LaunchedPluginListensOnAPrivateSocket(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("this system has no private sockets")
	}
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	path := socketOf(h)
	dir := filepath.Dir(path)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || path == "" {
		t.Fatalf("socket %q: %v, %v", path, info, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the socket: %v, %v", entries, err)
	}
	if os.Geteuid() == 0 { // nobody else comes to the socket
		probe := exec.CommandContext(t.Context(), "/bin/ls", dir)
		probe.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := probe.CombinedOutput(); err == nil {
			t.Errorf("another user sees %s", out)
		}
	}
	if got, err := call("hello"); got != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	if now := socketOf(h); now == path {
		t.Errorf("the new instance is at %s, too", now)
	}
	for _, step := range []string{"replaced", "stopped"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %s is left: %v", step, path, err)
		}
		path = socketOf(h)
		if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
			t.Fatal(err)
		}
		if step == "replaced" {
			_, _, _ = h.Launcher().GetServiceClient("echo", "echo")
		}
	}
	if err := h.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
}

// Somebody who takes the socket's place does not get the calls.
func TestAudit_H58_SquatterOfTheSocketIsRefused(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}}
		c.Limits.IdleTimeout = 10 * time.Millisecond // so that the host connects anew
	})
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	path := socketOf(h)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	came := squat(t, h, l)
	hosttest.Eventually(t, "a call connects anew", func() bool {
		_, _ = call("hello")
		return len(came) > 0
	})
	if got, err := call("hello"); err == nil {
		t.Errorf("somebody answers %q", got)
	}
}

// squat serves on a socket as the plugin would, with the certificate of another life of it, and
// says who came.
func squat(t *testing.T, h *hosttest.Host, l net.Listener) <-chan net.Conn {
	t.Helper()
	config, err := h.Authority.PluginTLS("echo")
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan net.Conn, 1)
	server := &http.Server{
		TLSConfig: config, ReadHeaderTimeout: wait, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			t.Errorf("the squatter got the call of %s", r.URL.Path)
			echoHandler().ServeHTTP(w, r)
		}),
		ConnState: func(c net.Conn, _ http.ConnState) {
			select {
			case came <- c:
			default:
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return came
}

// A plugin with a port listens there, as before.
func TestLaunchedPluginListensOnItsPort(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	_, port, _ := net.SplitHostPort(hosttest.FreeAddr(t))
	sp := spec()
	sp.Port, _ = strconv.Atoi(port)
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	if got, err := caller(t, h, "echo")("hello"); got != "hello" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	if got := h.Plugins()[0].Endpoint; got != "https://127.0.0.1:"+port {
		t.Errorf("it is at %s", got)
	}
}

// A plugin runs as the user that its spec names, and only root can change that.
func TestLaunchedPluginRunsAsItsUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can change the user")
	}
	for name, tt := range map[string]struct{ user, group, want string }{
		"user":           {"nobody", "", "65534 65534"},
		"user and group": {"nobody", "daemon", "65534 1"},
		"numbers":        {"65534", "1", "65534 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			sp := spec()
			sp.User, sp.Group = tt.user, tt.group
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if got, err := caller(t, h, "echo")("user"); got != tt.want || err != nil {
				t.Errorf("it runs as %q, %v", got, err)
			}
			info, err := os.Stat(filepath.Dir(socketOf(h)))
			if err != nil {
				t.Fatal(err)
			}
			if stat, ok := info.Sys().(*syscall.Stat_t); !ok || strconv.Itoa(int(stat.Uid)) != strings.Fields(tt.want)[0] || info.Mode().Perm() != 0o700 {
				t.Errorf("its socket is in %+v", info)
			}
		})
	}
	h := start(t, "echo")
	for field, edit := range map[string]func(*connectplugin.PluginSpec){
		"no-such-user": func(s *connectplugin.PluginSpec) { s.User = "no-such-user" }, "no-such-group": func(s *connectplugin.PluginSpec) { s.User, s.Group = "nobody", "no-such-group" },
	} {
		sp := spec()
		edit(&sp)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
		if _, err := h.Launcher().GetDefaultService("echo"); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// What launches open is closed again, whatever ends them.
func TestAudit_H52_LaunchesLeaveNothingOpen(t *testing.T) {
	h := start(t, "echo")
	sp := spec()
	sp.Restart.Never = true
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	round := func(i int) {
		_, client, err := h.Launcher().GetServiceClient("echo", "echo")
		if err != nil || client == nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			_ = syscall.Kill(launched(t, h, "echo").Pid, syscall.SIGKILL)
			hosttest.Eventually(t, "it is gone", func() bool { return len(h.Plugins()) == 0 })
			return
		}
		if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		round(i)
	}
	files := func() int { return strings.Count(openFiles(), "\n") }
	before, routines := files(), runtime.NumGoroutine()
	for i := range 6 {
		round(i)
	}
	hosttest.Eventually(t, "as many descriptors and goroutines as before", func() bool {
		return files() <= before && runtime.NumGoroutine() <= routines
	})
}

// A drained plugin gets no new calls, and those in flight are waited for.
func TestDrain(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	id, gate := h.Plugins()[0].RuntimeID, filepath.Join(t.TempDir(), "gate")
	if err := h.Drain(t.Context(), "plugin-of-nobody"); err == nil {
		t.Error("nobody was drained")
	}
	inFlight := make(chan error, 1)
	go func() {
		_, err := call("until " + gate)
		inFlight <- err
	}()
	hosttest.Eventually(t, "a call is in flight", func() bool { return h.Plugins()[0].InFlight == 1 })
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Drain(impatient, id); !errors.Is(err, context.Canceled) {
		t.Errorf("without patience: %v", err)
	}
	if got := h.Plugins()[0]; len(got.Services) != 0 || got.RuntimeID != id {
		t.Errorf("it still provides %+v", got)
	}
	if _, err := call("hello"); err == nil {
		t.Error("a new call comes through")
	}
	drained := make(chan error, 1)
	go func() { drained <- h.Drain(t.Context(), id) }()
	select {
	case err := <-drained:
		t.Errorf("it does not wait for the call in flight: %v", err)
	case <-time.After(hosttest.Moment):
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(hosttest.Arrival(t, drained), hosttest.Arrival(t, inFlight)); err != nil {
		t.Error(err)
	}
}
