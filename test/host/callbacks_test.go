package host_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// idleHost is a host that serves nobody, in a bubble of synctest too.
func idleHost(t *testing.T, edit func(*connectplugin.ServeConfig)) *connectplugin.Host {
	t.Helper()
	cfg := &connectplugin.ServeConfig{
		Authority: hosttest.NewAuthority(t), Policy: hosttest.EveryRight(), GracefulShutdownTimeout: 5 * time.Second,
	}
	edit(cfg)
	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

func TestShutdown_CleanupIsBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ctx     time.Duration // zero for none
		cleanup func(context.Context) error
		in      time.Duration
		want    string
	}{
		"waits for its context": {0, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 5 * time.Second, "deadline exceeded"},
		"a shorter context of Shutdown's": {
			3 * time.Second, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, 3 * time.Second, "canceled",
		},
		"a context of Shutdown's that is almost over": {
			time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, time.Second, "canceled",
		},
		"panics": {0, func(context.Context) error { panic("mine") }, 0, "ServeConfig.Cleanup panicked: mine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				host := idleHost(t, func(cfg *connectplugin.ServeConfig) { cfg.Cleanup = c.cleanup })
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if c.ctx > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.ctx)
				}
				defer cancel()
				begun := time.Now()
				err := host.Shutdown(ctx)
				if took := time.Since(begun); took != c.in || err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Shutdown after %s: %v, want %q after %s", took, err, c.want, c.in)
				}
				if again := host.Shutdown(ctx); again == nil || again.Error() != err.Error() {
					t.Errorf("Shutdown again: %v", again)
				}
			})
		})
	}
}

func TestShutdown_ACleanupThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		host := idleHost(t, func(c *connectplugin.ServeConfig) {
			c.Cleanup = func(context.Context) error { <-release; return nil }
		})
		begun := time.Now()
		err := host.Shutdown(t.Context())
		if took := time.Since(begun); took < 6*time.Second || took > 7*time.Second || err == nil ||
			!strings.Contains(err.Error(), "ServeConfig.Cleanup has not returned") {
			t.Errorf("Shutdown after %s: %v", took, err)
		}
		close(release)
	})
}

func TestShutdown_CalledByWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	t.Run("Cleanup", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var host *connectplugin.Host
			host = idleHost(t, func(c *connectplugin.ServeConfig) {
				c.Cleanup = func(ctx context.Context) error { return host.Shutdown(ctx) }
			})
			if err := host.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "ServeConfig.Cleanup calls Host.Shutdown") {
				t.Errorf("Shutdown: %v", err)
			}
		})
	})
	t.Run("Cleanup with another context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var host *connectplugin.Host
			host = idleHost(t, func(c *connectplugin.ServeConfig) {
				c.Cleanup = func(context.Context) error { return host.Shutdown(context.Background()) }
			})
			if err := host.Shutdown(t.Context()); err == nil || !strings.Contains(err.Error(), "ServeConfig.Cleanup has not returned") {
				t.Errorf("Shutdown: %v", err)
			}
		})
	})
}

func TestSetPolicy_CalledByAudit(t *testing.T) {
	t.Parallel()
	var host atomic.Pointer[hosttest.Host]
	var mu sync.Mutex
	var kinds []connectplugin.AuditKind
	var inner error
	inside := sync.OnceFunc(func() { inner = host.Load().SetPolicy(nil) })
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.Audit = func(e connectplugin.AuditEvent) {
			mu.Lock()
			kinds = append(kinds, e.Kind)
			mu.Unlock()
			if e.Kind == connectplugin.AuditPolicyChanged {
				inside()
			}
		}
	})
	host.Store(h)
	h.Enrol(t, "all", nil)
	if err := h.SetPolicy(hosttest.EveryRight()); err != nil || inner != nil {
		t.Fatalf("SetPolicy: %v, in Audit: %v", err, inner)
	}
	mu.Lock()
	defer mu.Unlock()
	ended, changed := 0, 0
	for _, k := range kinds {
		switch k {
		case connectplugin.AuditEnded:
			ended++
		case connectplugin.AuditPolicyChanged:
			changed++
		default:
		}
	}
	if ended != 1 || changed != 2 || h.Usage().Identities != 0 {
		t.Errorf("events %v, %d identities; want one ended, two changes and nobody", kinds, h.Usage().Identities)
	}
}

func TestSetPolicy_CalledBySecret(t *testing.T) {
	t.Parallel()
	secret := connectplugin.Secret("0123456789abcdef0123456789abcdef")
	var host atomic.Pointer[hosttest.Host]
	var mu sync.Mutex
	var errs []error
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret {
			if h := host.Load(); h != nil {
				err := h.SetPolicy(hosttest.EveryRight())
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return secret
		}
	})
	for range 2 {
		h.Enrol(t, "all", func(c *connectplugin.ClientConfig) { c.Secret = secret })
	}
	host.Store(h)
	err := h.SetPolicy(hosttest.EveryRight())
	host.Store(nil)
	mu.Lock()
	defer mu.Unlock()
	told := 0
	for _, e := range errs {
		if e != nil && strings.Contains(e.Error(), "HandshakeAuth.Secret, which SetPolicy calls, must not call SetPolicy itself") {
			told++
		}
	}
	if told != 2 || len(errs) != told || err != nil { // once for each plugin, and the change is made
		t.Errorf("SetPolicy: %v; %d of %d in Secret were told", err, told, len(errs))
	}
	if err := h.SetPolicy(hosttest.EveryRight()); err != nil || h.Usage().Identities != 2 {
		t.Errorf("SetPolicy afterwards: %v, %d identities", err, h.Usage().Identities)
	}
}

func TestSetPolicy_ASecretThatPanicsChangesNothing(t *testing.T) {
	t.Parallel()
	secret := connectplugin.Secret("0123456789abcdef0123456789abcdef")
	var broken atomic.Bool
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.EveryRight()
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret {
			if broken.Load() {
				panic("mine")
			}
			return secret
		}
	})
	h.Enrol(t, "all", func(c *connectplugin.ClientConfig) { c.Secret = secret })
	broken.Store(true)
	if err := h.SetPolicy(hosttest.EveryRight()); err == nil || !strings.Contains(err.Error(), "HandshakeAuth.Secret panicked: mine") {
		t.Errorf("SetPolicy: %v", err)
	}
	if n := h.Usage().Identities; n != 1 || h.Audit.Has(connectplugin.AuditPolicyChanged) {
		t.Errorf("%d identities, want the one of before, and no change", n)
	}
}

// What was done is done: an Audit that panics keeps nobody from hearing so, and the event is in the log.
func TestAudit_APanicIsNoErrorOfWhoActs(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	log := &hosttest.Buffer{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger = hosttest.EveryRight(), slog.New(slog.NewTextHandler(log, nil))
		c.Audit = func(connectplugin.AuditEvent) {
			if broken.Load() {
				panic(errors.New("mine"))
			}
		}
	})
	broken.Store(true)
	h.Enrol(t, "all", nil)
	if n := h.RevokeSelf("all"); n != 1 {
		t.Errorf("RevokeSelf ended %d", n)
	}
	if err := h.SetPolicy(nil); err != nil {
		t.Errorf("SetPolicy: %v", err)
	}
	for _, want := range []string{"ServeConfig.Audit panicked: mine", "kind=issued", "kind=ended", "kind=policy_changed"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %q:\n%s", want, log.String())
		}
	}
}

// Whatever callback it is that does not return, Shutdown does, after twice the time for calls in flight and ten seconds.
func TestShutdown_ReturnsWhateverDoesNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		host := idleHost(t, func(c *connectplugin.ServeConfig) {
			c.Audit = func(e connectplugin.AuditEvent) {
				if e.Kind == connectplugin.AuditEnded {
					<-release
				}
			}
		})
		host.Launcher().Configure(map[string]connectplugin.PluginSpec{"all": {
			Plugin: hosttest.LoggerPlugin{}, ImplFactory: func() any { return &hosttest.RecordingLogger{} },
		}})
		if err := host.Launcher().Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		err := host.Shutdown(t.Context())
		if took := time.Since(begun); took != 20*time.Second || err == nil || !strings.Contains(err.Error(), "it is over time") {
			t.Errorf("Shutdown after %s: %v", took, err)
		}
		close(release)
		if err := host.Shutdown(t.Context()); err != nil && !strings.Contains(err.Error(), "cut off") {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// telling is a handler of a log that calls a function for each line.
type telling struct {
	slog.Handler

	told func(line string)
}

func (h telling) Handle(_ context.Context, r slog.Record) error {
	h.told(r.Message)
	return nil
}

func (telling) Enabled(context.Context, slog.Level) bool { return true }

func (h telling) WithAttrs([]slog.Attr) slog.Handler { return h }

// What the log is told of a change of policy it is told when nothing is locked: its handler may change the policy again.
func TestSetPolicy_CalledByTheLog(t *testing.T) {
	t.Parallel()
	var host atomic.Pointer[hosttest.Host]
	var mu sync.Mutex
	inner := map[string]error{}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Logger = slog.New(telling{slog.DiscardHandler, func(line string) {
			mu.Lock()
			_, known := inner[line]
			inner[line] = nil
			mu.Unlock()
			if at := host.Load(); at != nil && !known {
				err := at.SetPolicy(hosttest.LoggerPolicy())
				mu.Lock()
				defer mu.Unlock()
				inner[line] = err
			}
		}})
	})
	h.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	})
	without := hosttest.LoggerPolicy()
	rules := without.Plugins["logger"]
	rules.Provides = nil
	without.Plugins["logger"] = rules
	host.Store(h)
	changed := make(chan error, 1)
	go func() { changed <- errors.Join(h.SetPolicy(without), h.SetPolicy(hosttest.LoggerPolicy())) }()
	if err := hosttest.Arrival(t, changed); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if err, told := inner["a service that was withheld is provided again"]; !told || err != nil {
		t.Errorf("%v, %v", told, err)
	}
}
