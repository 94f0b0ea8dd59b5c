package attack_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// seen is what a provider learned of its callers.
type seen struct {
	mu      sync.Mutex
	callers []connectplugin.Caller
	headers []http.Header
}

func (s *seen) note(ctx context.Context, header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, _ := connectplugin.CallerFromContext(ctx)
	s.callers, s.headers = append(s.callers, c), append(s.headers, header.Clone())
}

func (s *seen) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.callers, s.headers = nil, nil
}

// lying is a client that states another caller.
type lying struct{ next connect.HTTPClient }

func (l lying) Do(r *http.Request) (*http.Response, error) {
	for _, name := range []string{"Id", "Self-Id", "Self-Version", "Version", "Rights"} {
		r.Header.Set("X-Plugin-Caller-"+name, "admin")
		r.Header.Add("X-Plugin-Caller-"+name, "root")
	}
	r.Header["X_plugin_caller_self_id"] = []string{"admin"}
	return l.next.Do(r)
}

// A provider learns who calls from the host and from nobody else, in every protocol.
func TestAudit_USE35_TheHostStatesTheCaller(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret, "api": withSecret, "old": withSecret})
	})
	s := &seen{}
	e := &echo{seen: s.note}
	host.StartPlugin(t, "storage", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{e.service("echo")}
	})
	for selfID, version := range map[string]string{"api": "2.3.4-rc.1+build.5", "old": ""} {
		s.reset()
		client := host.Enrol(t, selfID, func(c *connectplugin.ClientConfig) {
			c.SelfVersion, c.Metadata.Requires = version, hosttest.Requires("echo")
		})
		conn, err := client.Service(t.Context(), "echo", "")
		if err != nil {
			t.Fatal(err)
		}
		wantServed(t, selfID, callEcho(t.Context(), lying{conn.HTTPClient()}, conn.BaseURL()))
		want := connectplugin.Caller{RuntimeID: client.RuntimeID(), SelfID: selfID, SelfVersion: version}
		for i, got := range s.callers {
			if got.RuntimeID != want.RuntimeID || got.SelfID != want.SelfID || got.SelfVersion != want.SelfVersion || got.Fingerprint != "" {
				t.Errorf("the provider of %s was told %+v", selfID, got)
			}
			wantHeaders(t, s.headers[i], want)
		}
		if len(s.callers) != 2*len(protocols) {
			t.Errorf("%d calls were served", len(s.callers))
		}
	}
}

func wantHeaders(t *testing.T, got http.Header, want connectplugin.Caller) {
	t.Helper()
	stated := map[string]string{
		"X-Plugin-Caller-Id": want.RuntimeID, "X-Plugin-Caller-Self-Id": want.SelfID, "X-Plugin-Caller-Self-Version": want.SelfVersion,
	}
	for name, values := range got {
		if !strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "x-plugin-caller-") {
			continue
		}
		if value, ok := stated[name]; !ok || len(values) != 1 || values[0] != value {
			t.Errorf("%s is %q, want %q", name, values, value)
		}
	}
	for name, value := range stated {
		if got.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Get(name), value)
		}
	}
}

// The host's own plugins are told by the host, too; a stranger that a public one serves
// is nobody.
func TestAudit_USE35_HostPluginsAreToldByTheHost(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"api": withSecret})
		c.Policy.Public = []string{"logger"}
		c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		c.Impls = map[string]any{"logger": logger}
	})
	api := host.Enrol(t, "api", nil)
	told := connectplugin.Caller{RuntimeID: api.RuntimeID(), SelfID: "api", SelfVersion: "1.0.0"}
	for want, client := range map[*connectplugin.Caller]connect.HTTPClient{&told: api.HTTPClient(), {}: host.Stranger(t)} {
		logger.Reset()
		_, err := loggerv1connect.NewLoggerClient(lying{client}, host.URL).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		_, _, headers := logger.Got()
		header := headers[0]
		delete(header, "X_plugin_caller_self_id") // is no field of the host's: what is not forwarded keeps its others
		wantHeaders(t, header, *want)
	}
}
