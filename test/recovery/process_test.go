package recovery_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Variables of the process of a plugin: its self id, its host and where its credentials are.
const (
	processVariable = "RECOVERY_TEST_PLUGIN"
	hostVariable    = "RECOVERY_TEST_HOST"
	dirVariable     = "RECOVERY_TEST_DIR"
)

// processMain is a plugin that may stand by.
func processMain(selfID string) error {
	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: os.Getenv(dirVariable)})
	if err != nil {
		return err
	}
	return connectplugin.ServePlugin(context.Background(), &connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{HostURL: os.Getenv(hostVariable), SelfID: selfID, Secret: hosttest.Secret, TLS: tls},
		Services: []connectplugin.PluginService{
			{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()},
		},
		Standby: true,
	})
}

// process is a plugin in a process of its own.
type process struct {
	*exec.Cmd

	selfID string
	wait   func() error
}

// begin starts a plugin in a process of its own, and waits until the host has its registration.
func begin(t *testing.T, host *hosttest.Restartable, selfID string) *process {
	t.Helper()
	dir := filepath.Join(t.TempDir(), selfID)
	if err := host.Authority.WriteCredentials(dir, selfID); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+selfID, hostVariable+"="+host.URL, dirVariable+"="+dir)
	out := new(hosttest.Buffer)
	cmd.Stdout, cmd.Stderr = out, out
	before := count(host, connectplugin.AuditRegistered, selfID)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, selfID: selfID, wait: sync.OnceValue(cmd.Wait)}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s: %s", selfID, out)
		}
	})
	hosttest.Eventually(t, selfID+" is registered", func() bool { return count(host, connectplugin.AuditRegistered, selfID) > before })
	return p
}

func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.wait()
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// status is what the host says of a plugin, of the youngest of several.
func (p *process) status(host *hosttest.Restartable) (s connectplugin.PluginStatus) {
	for _, each := range host.Plugins() {
		if each.SelfID == p.selfID && !each.Enrolled.Before(s.Enrolled) {
			s = each
		}
	}
	return s
}

func (p *process) provides(host *hosttest.Restartable) bool {
	return host.Registered(echoType, p.status(host).RuntimeID)
}

// steadily calls a service until stop, which returns the codes of what failed.
func steadily(t *testing.T, r reachable) (stop func() []connect.Code) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []connect.Code, 1)
	go func() {
		var codes []connect.Code
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			err := once(ctx, r)
			if err != nil && ctx.Err() == nil && !slices.Contains(codes, connect.CodeOf(err)) {
				codes = append(codes, connect.CodeOf(err))
			}
			<-pace.C
		}
		done <- codes
	}()
	return sync.OnceValue(func() []connect.Code {
		cancel()
		return hosttest.Arrival(t, done)
	})
}

// Two processes of which one stands by, and the calls of a third: one that is killed is replaced,
// one that is stopped for a while keeps its type, and one that hangs for long does not. Callers
// hear nothing but unavailable meanwhile.
func TestAudit_USE39_ProcessesThatStandBy(t *testing.T) {
	t.Parallel()
	const soon, longer = 200 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		patience time.Duration // until the host gives up a connection on which nothing comes
		trouble  func(*testing.T, *hosttest.Restartable, *process)
		takes    bool
	}{
		"killed": {longer, func(_ *testing.T, _ *hosttest.Restartable, blue *process) { blue.kill() }, true},
		"stopped for a while": {longer, func(t *testing.T, host *hosttest.Restartable, blue *process) {
			t.Helper()
			blue.signal(t, syscall.SIGSTOP)
			wantAskedInVain(t, host, blue.status(host).RuntimeID)
			blue.signal(t, syscall.SIGCONT)
			hosttest.Eventually(t, "it answers", func() bool { return blue.status(host).Reason == "" })
		}, false},
		"hangs for long": {soon, func(t *testing.T, _ *hosttest.Restartable, blue *process) {
			t.Helper()
			blue.signal(t, syscall.SIGSTOP)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy = pair(echoType)
				cfg.HealthProbe = connectplugin.HealthProbeConfig{Interval: soon, Timeout: soon, Lease: longer}
				cfg.Limits.KeepAliveInterval, cfg.Limits.KeepAliveTimeout = c.patience, c.patience
			})
			blue := begin(t, host, "blue")
			green := begin(t, host, "green")
			stop := steadily(t, service(t, caller(t, host)))
			t.Cleanup(func() { _ = stop() })
			c.trouble(t, host, blue)
			if c.takes {
				hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) })
				hosttest.Eventually(t, "and the first does not", func() bool { return !blue.provides(host) })
			}
			conn := service(t, caller(t, host))
			hosttest.Eventually(t, "calls are answered", func() bool { return once(t.Context(), conn) == nil })
			if n := len(takeovers(host, "green")); c.takes != (n == 1) || blue.provides(host) == c.takes {
				t.Errorf("taken over %d times", n)
			}
			if codes := stop(); len(codes) > 1 || len(codes) == 1 && codes[0] != connect.CodeUnavailable {
				t.Errorf("calls failed with %v", codes)
			}
		})
	}
}

// One that hung until another took over waits for that when it goes on, and provides again when
// that is killed. Each that is killed comes back, and waits for nobody who is dead.
func TestAudit_USE39_ProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	const soon = 200 * time.Millisecond
	host := start(t, func(cfg *connectplugin.ServeConfig) {
		cfg.Policy = pair(echoType)
		cfg.HealthProbe = connectplugin.HealthProbeConfig{Interval: soon, Timeout: soon, Lease: time.Hour}
		cfg.Limits.KeepAliveInterval, cfg.Limits.KeepAliveTimeout = soon, soon
	})
	blue := begin(t, host, "blue")
	green := begin(t, host, "green")
	blue.signal(t, syscall.SIGSTOP)
	hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) })
	blue.signal(t, syscall.SIGCONT)
	hosttest.Eventually(t, "the first waits", func() bool { return blue.status(host).Reason == "stands by: "+echoType })
	if blue.provides(host) || !green.provides(host) {
		t.Fatal("it took its type back")
	}
	for range 2 {
		green.kill()
		hosttest.Eventually(t, "the first provides", func() bool { return blue.provides(host) })
		green = begin(t, host, "green")
		if green.provides(host) {
			t.Fatal("it took its type back")
		}
		blue.kill()
		hosttest.Eventually(t, "the second provides", func() bool { return green.provides(host) })
		blue = begin(t, host, "blue")
	}
}
