package host_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Nor do changes that are allowed fill the audit, however often a plugin makes them, nor
// connections that are cut off: the first are told one by one.
func TestAudit_H32_RepeatedEventsAreCounted(t *testing.T) {
	t.Parallel()
	const times, burst, most = 60, 20, 30
	all := []string{"*"}
	register := func(t *testing.T, _ *hosttest.Host, c *connectplugin.Client) {
		t.Helper()
		id, err := hosttest.Register(t, c, "logger", "1.0.0")
		if err = errors.Join(err, hosttest.Unregister(t, c, id)); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		kind connectplugin.AuditKind
		does func(t *testing.T, host *hosttest.Host, c *connectplugin.Client)
	}{
		"registrations": {connectplugin.AuditRegistered, register},
		"withdrawals":   {connectplugin.AuditUnregistered, register},
		"grants": {connectplugin.AuditGranted, func(t *testing.T, host *hosttest.Host, c *connectplugin.Client) {
			t.Helper()
			_, err := connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL).RequestCapability(t.Context(),
				connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}))
			if err != nil {
				t.Fatal(err)
			}
		}},
		"connections that are cut off": {connectplugin.AuditLimited, func(t *testing.T, host *hosttest.Host, _ *connectplugin.Client) {
			t.Helper()
			flooded(t, host)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
					"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides, p.Capabilities = all, all }),
				}}
				c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
				c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(nil, "logger", "1.0.0"))
				c.Logger = nil
				c.Limits = connectplugin.Limits{HandshakesPerSecond: 0.01, HandshakeBurst: burst, ChangesPerSecond: 1e9, ChangeBurst: burst}
			})
			c := host.Enrol(t, "api", hosttest.Providing("logger"))
			for range times {
				test.does(t, host, c)
			}
			told := func() (n int) {
				for _, e := range host.Audit.Events() {
					if e.Kind == test.kind {
						n++
					}
				}
				return n
			}
			hosttest.Eventually(t, "the first are told", func() bool { return told() >= burst/2 })
			if n := told(); n > most {
				t.Errorf("%d of %d are told one by one", n, times)
			}
		})
	}
}

// flooded is a connection that is cut off for its PINGs.
func flooded(t *testing.T, host *hosttest.Host) {
	t.Helper()
	cfg := host.StrangerTLS()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", host.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var out strings.Builder
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	_ = f.WriteSettings()
	for range 300 {
		_ = f.WritePing(false, [8]byte{})
	}
	if _, err := io.WriteString(conn, out.String()); err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(hosttest.Wait))
	_, _ = io.Copy(io.Discard, conn)
}

// brokenLog is a handler of a log that panics, at the latest where it writes.
type brokenLog struct {
	level bool // also where it is asked for its level
	with  bool // also where another is made of it
	lines *atomic.Int64
}

func (l brokenLog) Enabled(context.Context, slog.Level) bool {
	if l.lines.Add(1); l.level {
		panic("level")
	}
	return true
}

func (l brokenLog) Handle(context.Context, slog.Record) error {
	panic("line")
}

func (l brokenLog) WithAttrs([]slog.Attr) slog.Handler {
	if l.with {
		panic("attrs")
	}
	return l
}

func (l brokenLog) WithGroup(string) slog.Handler {
	if l.with {
		panic("group")
	}
	return l
}

// A log that panics costs its lines and nothing else: host, client and plugin go on, whatever they have to say.
func TestALogThatPanics(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]brokenLog{"a line": {}, "the level": {level: true}, "attributes": {with: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken.lines = &atomic.Int64{}
			log := slog.New(broken)
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy, c.Logger, c.Audit = hosttest.LoggerPolicy(), log, nil
				p := c.Policy.Plugins["logger"]
				p.AllowOwnAddress = true
				c.Policy.Plugins["logger"] = p
			})
			dir := filepath.Join(t.TempDir(), "logger")
			if err := host.Authority.WriteCredentials(dir, "logger"); err != nil {
				t.Fatal(err)
			}
			own, err := connectplugin.AwaitCredentials(t.Context(), connectplugin.CredentialsConfig{Dir: dir, Logger: log})
			if err != nil {
				t.Fatal(err)
			}
			plugin := host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
				c.Client.Logger, c.Client.TLS = log, own
				c.Services = []connectplugin.PluginService{{
					Type: "logger", Version: "1.0.0", Path: "/logger/", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("handler") }),
				}}
			})
			caller := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.Logger, c.Metadata.Requires = log, hosttest.Requires("logger") })
			for path, want := range map[string]connect.Code{
				"/services/logger/-/logger/Log": connect.CodeInternal, "/nothing/Log": connect.CodeNotFound, "/services/secret/-/logger/Log": connect.CodeNotFound,
			} {
				call := connect.NewClient[loggerv1.LogRequest, loggerv1.LogResponse](caller.HTTPClient(), host.URL+path)
				_, err := call.CallUnary(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
				hosttest.WantCode(t, path, connect.CodeOf(err), want)
			}
			host.Revoke(caller.RuntimeID())
			plugin.Stop(t)
			if broken.lines.Load() == 0 {
				t.Error("nothing was written")
			}
		})
	}
}

// kindLog keeps the attributes whose value is a duration: a log in JSON writes those as numbers without a unit.
type kindLog struct {
	slog.Handler

	lines     *atomic.Int64
	durations *hosttest.Buffer
}

func (l kindLog) Enabled(context.Context, slog.Level) bool { return true }

func (l kindLog) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if slices.Contains([]string{"wait", "latency"}, a.Key) {
			l.lines.Add(1)
		}
		if a.Value.Resolve().Kind() == slog.KindDuration {
			_, _ = l.durations.Write([]byte(r.Message + ": " + a.Key + "\n"))
		}
		return true
	})
	return nil
}

func (l kindLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l kindLog) WithGroup(string) slog.Handler      { return l }

// How long something took or waits has its unit in each log, one in JSON, too: of a call, and of a plugin whose host is not there.
func TestDurationsInTheLogHaveAUnit(t *testing.T) {
	t.Parallel()
	kinds := kindLog{slog.DiscardHandler, &atomic.Int64{}, &hosttest.Buffer{}}
	log := slog.New(kinds)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Logger, c.Audit = hosttest.LoggerPolicy(), log, nil
		p := c.Policy.Plugins["logger"]
		p.AllowOwnAddress = true
		c.Policy.Plugins["logger"] = p
	})
	host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Client.Logger = log
		c.Services = []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: "/logger/", Handler: http.NotFoundHandler()}}
	})
	caller := host.Enrol(t, "api", hosttest.Requiring("logger"))
	call := connect.NewClient[loggerv1.LogRequest, loggerv1.LogResponse](caller.HTTPClient(), host.URL+"/services/logger/-/logger/Log")
	if _, err := call.CallUnary(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err == nil {
		t.Error("there is something")
	}
	calls := kinds.lines.Load()
	ctx, cancel := context.WithCancel(t.Context())
	own, err := host.Authority.PluginTLS("other")
	if err != nil {
		t.Fatal(err)
	}
	away := host.ClientConfig(t, "other")
	away.HostURL, away.Logger, away.TLS = "https://"+hosttest.FreeAddr(t), log, own
	served := make(chan error, 1)
	go func() { served <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{Client: away}) }()
	hosttest.Eventually(t, "it says when it tries again", func() bool { return kinds.lines.Load() > calls })
	cancel()
	<-served
	if calls == 0 || kinds.durations.String() != "" {
		t.Errorf("%d lines of calls; durations:\n%s", calls, kinds.durations)
	}
}
