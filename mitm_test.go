package connectplugin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// serveTLS serves handler over TLS and HTTP/2 until the test ends, and returns
// its base URL.
func serveTLS(t testing.TB, cfg *tls.Config, handler http.Handler) string {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	l := hosttest.Listen(t)
	server := &http.Server{
		Handler: handler, TLSConfig: cfg, Protocols: &protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "https://" + l.Addr().String()
}

// hostTLS is a configuration that passes for the host: a certificate of its
// authority, for its name.
func hostTLS(t testing.TB, host *hosttest.Host) *tls.Config {
	t.Helper()
	cfg, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// mitm stands between clients and a host. It holds a certificate that passes for
// the host's, so TLS alone stops nothing.
type mitm struct {
	URL string

	upstream *http.Client
	target   string

	mu         sync.Mutex
	onRequest  func(http.Header, []byte) []byte // nil: verbatim
	onResponse func([]byte) []byte              // nil: verbatim; successful answers only
	requests   [][]byte                         // as they came
	responses  [][]byte
}

func startMITM(t testing.TB, host *hosttest.Host) *mitm {
	t.Helper()
	m := &mitm{upstream: host.Stranger(t), target: host.URL}
	m.URL = serveTLS(t, hostTLS(t, host), m)
	return m
}

// ServeHTTP passes a request on and its answer back.
func (m *mitm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out, err := http.NewRequestWithContext(r.Context(), r.Method, m.target+r.URL.Path, http.NoBody)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header = r.Header.Clone()
	out.Header.Set("Accept-Encoding", "identity")
	body = m.takeRequest(out.Header, body)
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp, err := m.upstream.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if resp.StatusCode == http.StatusOK && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/proto") {
		answer = m.takeResponse(answer)
		resp.Header.Del("Content-Length")
	}
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
}

// alter replaces what is done to the messages, and forgets those seen so far.
func (m *mitm) alter(onRequest func(http.Header, []byte) []byte, onResponse func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onRequest, m.onResponse, m.requests, m.responses = onRequest, onResponse, nil, nil
}

// seen returns the messages since the last alter, as they came.
func (m *mitm) seen() (requests, responses [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests), slices.Clone(m.responses)
}

func (m *mitm) takeRequest(header http.Header, body []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, bytes.Clone(body))
	if m.onRequest == nil {
		return body
	}
	return m.onRequest(header, body)
}

func (m *mitm) takeResponse(body []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.responses = append(m.responses, bytes.Clone(body))
	if m.onResponse == nil {
		return body
	}
	return m.onResponse(body)
}

// victim is the configuration of an honest plugin that declares all that a
// handshake can carry, and whose connection the man in the middle took over.
// A bound client dials by itself and sees its TLS connection; the other brings
// an HTTP client, behind which it sees none.
func (m *mitm) victim(t testing.TB, host *hosttest.Host, bound bool) connectplugin.ClientConfig {
	t.Helper()
	cfg := host.ClientConfig(t, "victim")
	cfg.HostURL = m.URL
	cfg.Plugins = connectplugin.PluginSet{"logger": loggerPlugin{}, "archive": loggerPlugin{}}
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion, cfg.ProtocolVersion = 1, 3, 3
	cfg.Metadata.Provides = []connectplugin.ServiceDeclaration{
		{Type: "logger", Version: "1.0.0", Path: "/a.v1.A/"}, {Type: "storage", Version: "2.0.0", Path: "/b.v1.B/"},
	}
	cfg.Metadata.Requires = []connectplugin.ServiceDependency{
		{Type: "cache", MinVersion: ">=1.0", RequiredForStartup: true, WatchForChanges: true}, {Type: "queue", MinVersion: "2.0.0"},
	}
	if !bound {
		cfg.HTTPClient, cfg.TLS = hosttest.HTTPClient(t, host.StrangerTLS()), nil
	}
	return cfg
}

// enrolOnce makes a client, connects it once and closes it.
func enrolOnce(ctx context.Context, cfg connectplugin.ClientConfig) (runtimeID string, err error) {
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	err = c.Connect(ctx)
	return c.RuntimeID(), err
}

// mustParse reads a message off the wire.
func mustParse[M proto.Message](t testing.TB, body []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(body, m); err != nil {
		t.Fatalf("parse %T: %v", m, err)
	}
	return m
}

func mustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("marshal %T: %v", m, err)
	}
	return body
}

// otherLogger is a second plugin service of the host, on a path of its own.
type otherLogger struct{ loggerPlugin }

func (otherLogger) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{
		Name: "archive", Version: "1.0.0", Path: "/archive.v1.Logger/",
		Provides: []connectplugin.ServiceDeclaration{
			{Type: "left", Version: "1.0.0", Path: "/left.v1.Left/"}, {Type: "right", Version: "1.0.0"},
		},
		Requires: []connectplugin.ServiceDependency{
			{Type: "up", MinVersion: "1.0.0", RequiredForStartup: true, WatchForChanges: true}, {Type: "down"},
		},
	}
}

func (otherLogger) ConnectServer(any) (string, http.Handler, error) {
	return "/archive.v1.Logger/", http.NotFoundHandler(), nil
}

// attackedHost is a host whose answer to the victim has something in every field,
// and whose bounds no test meets by accident.
func attackedHost(t testing.TB, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		const many = 1_000_000
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"victim": hosttest.Allow(
			func(p *connectplugin.PluginPolicy) {
				p.HostPlugins, p.Capabilities, p.MaxInstances = []string{"*"}, []string{"*"}, many
			})}}
		c.ProtocolVersion, c.MinProtocolVersion, c.DeprecatedBelow = 3, 1, 3
		c.ServerMetadata = map[string]string{"region": "north", "zone": "b"}
		c.Plugins = connectplugin.PluginSet{"logger": loggerPlugin{}, "archive": otherLogger{}}
		c.Impls = map[string]any{"logger": &recordingLogger{}, "archive": struct{}{}}
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(newLoggerCapability(&recordingLogger{}))
		c.CapabilityBroker.RegisterCapability(capability(newLoggerCapability(&recordingLogger{}).Handler, "clock", "1.2.0"))
		c.Limits.MaxIdentities, c.Limits.MaxIdentitiesPerPeer, c.HandshakeAuth.ReplayCacheSize = many, many, many
		if edit != nil {
			edit(c)
		}
	})
}
