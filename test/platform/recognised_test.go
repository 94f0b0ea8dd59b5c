package platform_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// caller is another plugin of the company, which calls the first one.
func (c *company) caller(t *testing.T) func() error {
	t.Helper()
	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: c.URL, SelfID: "caller", HostIdentity: theCompanysHost, Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("echo")},
		TLS: &tls.Config{Certificates: []tls.Certificate{*c.ca.Issue(t, hosttest.CommonName("caller"))}, RootCAs: c.ca.Pool},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return echoCall(t, client)
}

// turnsUnhealthy waits until a plugin that is called is unhealthy for the host, and its caller hears so.
func (c *company) turnsUnhealthy(t *testing.T, call func() error, reason string) {
	t.Helper()
	hosttest.Eventually(t, "it is unhealthy", func() bool {
		err := call()
		return connect.CodeOf(err) == connect.CodeUnavailable && slices.ContainsFunc(c.Plugins(), func(i connectplugin.PluginStatus) bool {
			return i.SelfID == "echo" && i.Health == connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY && i.Reason == reason
		})
	})
}

// A plugin whose calls fail since nobody is at its endpoint is asked at once how it is, and not when its turn comes, and again
// until it is there.
func TestAudit_USE11_AnAdoptedPluginThatIsGoneIsUnhealthySoon(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(_ *hosttest.CA, cfg *connectplugin.ServeConfig, _ *connectplugin.PluginPolicy) {
		cfg.HealthProbe.Interval = time.Hour
	})
	way, plugin := hosttest.NewProxy(t, c.Host), c.run(t, "echo", c.ca.Issue(t, hosttest.CommonName("machine")))
	way.AimAt(plugin.addr())
	if err := c.Platform().AddPlugin(t.Context(), adoption(way.URL)); err != nil {
		t.Fatal(err)
	}
	call := c.caller(t)
	hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
	nobody := hosttest.Listen(t)
	_ = nobody.Close()
	way.AimAt(nobody.Addr().String())
	way.Cut()
	c.turnsUnhealthy(t, call, "does not answer the host")
	way.AimAt(plugin.addr())
	hosttest.Eventually(t, "it is called again", func() bool { return call() == nil })
}

// pretender answers whatever it is asked, with a certificate of its own, and counts the calls of others' plugins.
func pretender(t *testing.T, cert *tls.Certificate, served *atomic.Int32) (addr string) {
	t.Helper()
	url := hosttest.ServeTLS(t, &tls.Config{Certificates: []tls.Certificate{*cert}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.HasSuffix(r.URL.Path, "GetHealth") {
			body, _ = proto.Marshal(&connectpluginv1.GetHealthResponse{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY})
		} else {
			served.Add(1)
		}
		w.Header().Set("Content-Type", "application/proto")
		_, _ = w.Write(body)
	}))
	return strings.TrimPrefix(url, "https://")
}

// A new connection to an adopted plugin takes no call before the host knows that it leads there: by the key that the plugin had,
// by a name of its own, or by its proof. Nobody waits for the host to ask for the plugin's health, which calls that are answered
// keep it from.
func TestAudit_H58_NobodyElseServesTheCallsOfAnAdoptedPlugin(t *testing.T) {
	t.Parallel()
	machine := hosttest.CommonName("machine")
	for name, tt := range map[string]struct {
		first    func(*x509.Certificate)
		shared   bool // the other plugin has the certificate, too
		another  bool // answers, with a certificate of that name
		same     bool // the certificate is the first one
		answered bool
	}{
		"another, another key":          {first: machine, another: true},
		"another, the key of both":      {first: machine, shared: true, another: true, same: true},
		"itself, the same key":          {first: machine, same: true, answered: true},
		"itself, a new key":             {first: machine, answered: true},
		"itself, the key of both":       {first: machine, shared: true, same: true, answered: true},
		"itself, a new key of its name": {first: hosttest.CommonName("echo"), answered: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCompany(t, func(_ *hosttest.CA, cfg *connectplugin.ServeConfig, _ *connectplugin.PluginPolicy) {
				cfg.HealthProbe.Interval = time.Hour
			})
			way, p, first := hosttest.NewProxy(t, c.Host), c.Platform(), c.ca.Issue(t, tt.first)
			plugin := c.run(t, "echo", first)
			way.AimAt(plugin.addr())
			if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
				t.Fatal(err)
			}
			if tt.shared {
				other := adoption(c.run(t, "other", first).url)
				other.SelfID, other.Metadata.Provides = "other", hosttest.Provides("other")
				if err := p.AddPlugin(t.Context(), other); err != nil {
					t.Fatal(err)
				}
			}
			call := c.caller(t)
			hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
			second, served := first, new(atomic.Int32)
			if !tt.same {
				second = c.ca.Issue(t, tt.first)
			}
			if plugin.cert.Store(second); tt.another {
				way.AimAt(pretender(t, second, served))
			}
			way.Cut()
			if tt.answered {
				hosttest.Eventually(t, "it is called again", func() bool { return call() == nil })
				if said := c.log.String(); strings.Contains(said, "answers in the place") {
					t.Error(said)
				}
				return
			}
			hosttest.Eventually(t, "the log says so", func() bool {
				if call() == nil {
					t.Fatal("the call was answered")
				}
				return strings.Contains(c.log.String(), "another process answers in the place of an adopted plugin")
			})
			// Nobody waits for the host to ask the plugin in its turn, which is in an hour.
			c.turnsUnhealthy(t, call, "another process answers in its place")
			if !slices.ContainsFunc(c.Audit.Events(), func(e connectplugin.AuditEvent) bool {
				return e.Kind == connectplugin.AuditConflict && e.SelfID == "echo" && e.Reason == "another process answers in its place"
			}) {
				t.Error("the audit does not say so")
			}
			if n := served.Load(); n > 0 {
				t.Errorf("another got %d calls", n)
			}
			// The plugin itself is there again, and has its calls.
			way.AimAt(plugin.addr())
			plugin.cert.Store(first)
			hosttest.Eventually(t, "it is called again", func() bool { return call() == nil })
		})
	}
}

// While a plugin is replaced by itself, and has its next identity already, its calls find it on new connections, too, where it has
// to prove who it is.
func TestAudit_H54_APluginReplacedByItselfIsKnown(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(_ *hosttest.CA, cfg *connectplugin.ServeConfig, _ *connectplugin.PluginPolicy) {
		cfg.HealthProbe.Disabled = true // a call that is cut has it asked, and it is not well
	})
	c.reports = 50 * time.Millisecond
	way, p, first := hosttest.NewProxy(t, c.Host), c.Platform(), c.ca.Issue(t, hosttest.CommonName("machine"))
	plugin := c.run(t, "echo", first)
	way.AimAt(plugin.addr())
	if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
		t.Fatal(err)
	}
	c.shows(t, first, adopted) // another has the certificate, too
	call, before := c.caller(t), c.echo(t)
	hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
	plugin.well.Store(&before)
	replaced := make(chan error, 1)
	go func() { replaced <- p.ReplacePlugin(t.Context(), before, adoption(way.URL)) }()
	hosttest.Eventually(t, "it says by its next identity that it is not well", func() bool {
		return slices.ContainsFunc(c.Plugins(), func(i connectplugin.PluginStatus) bool { return i.RuntimeID != before && i.Reason == "sick" })
	})
	for range 3 {
		way.Cut()
		hosttest.Eventually(t, "it is called on a new connection", func() bool { return call() == nil })
	}
	if n := strings.Count(c.log.String(), "answers in the place"); n > 0 {
		t.Error(c.log.String())
	}
	plugin.well.Store(nil)
	if err := hosttest.Arrival(t, replaced); err != nil {
		t.Error(err)
	}
	if now := c.echo(t); now == before {
		t.Error("it is not replaced")
	}
	if err := call(); err != nil {
		t.Error(err)
	}
}

// echo is the runtime id of the plugin that the platform adopted.
func (c *company) echo(t *testing.T) string {
	t.Helper()
	for _, i := range c.Platform().Instances() {
		if i.SelfID == "echo" {
			return i.RuntimeID
		}
	}
	t.Fatal("it is not adopted")
	return ""
}

// An adopted plugin that comes back without its identity gets it though its calls are answered, and not when the host next asks
// how it is.
func TestAudit_H58_APluginThatIsCalledGetsItsIdentityBack(t *testing.T) {
	t.Parallel()
	c := startCompany(t, func(_ *hosttest.CA, cfg *connectplugin.ServeConfig, _ *connectplugin.PluginPolicy) {
		cfg.HealthProbe.Interval = time.Hour
	})
	own := c.ca.Issue(t, hosttest.CommonName("machine"))
	way, before := hosttest.NewProxy(t, c.Host), c.run(t, "echo", own)
	way.AimAt(before.addr())
	if err := c.Platform().AddPlugin(t.Context(), adoption(way.URL)); err != nil {
		t.Fatal(err)
	}
	call := c.caller(t)
	hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
	// Somebody else is there first, for whose sake the plugin does not wait.
	way.AimAt(pretender(t, c.ca.Issue(t, hosttest.CommonName("machine")), new(atomic.Int32)))
	way.Cut()
	hosttest.Eventually(t, "the log says so", func() bool {
		return call() != nil && strings.Contains(c.log.String(), "another process answers in the place of an adopted plugin")
	})
	after := c.run(t, "echo", own)
	way.AimAt(after.addr())
	hosttest.Eventually(t, "it has its identity back", func() bool {
		_ = call()
		return after.given.Load() == 1 && strings.Contains(c.log.String(), back)
	})
	if err := call(); err != nil {
		t.Error(err)
	}
}

// Adoptions of one plugin at the same time go one after the other, and each as it would alone: the plugin has one identity then.
func TestAudit_H55_AdoptionsOfOnePluginAtTheSameTime(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	config := adoption(sidecar(t, h, "echo", nil))
	const many = 3
	errs := make(chan error, many)
	for range many {
		go func() { errs <- h.Platform().AddPlugin(t.Context(), config) }()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if all := h.Platform().Instances(); len(all) != 1 {
		t.Errorf("instances %+v", all)
	}
	// Who waits for another does so no longer than it may.
	silent := hosttest.Listen(t)
	config.Endpoint = "https://" + silent.Addr().String()
	first, cancel := context.WithCancel(t.Context())
	go func() { errs <- h.Platform().AddPlugin(first, config) }()
	conn, err := silent.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	short, end := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer end()
	if err := h.Platform().AddPlugin(short, config); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another adoption") {
		t.Errorf("while another waits: %v", err)
	}
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("one that was canceled: %v", err)
	}
}
