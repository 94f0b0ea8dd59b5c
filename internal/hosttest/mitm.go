package hosttest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// MITM stands between clients and a host. It holds a certificate that passes for
// the host's, so TLS alone stops nothing.
type MITM struct {
	URL string

	upstream *http.Client
	target   string

	mu         sync.Mutex
	onRequest  func(http.Header, []byte) []byte // nil: verbatim
	onResponse func([]byte) []byte              // nil: verbatim; successful answers only
	requests   [][]byte                         // as they came
	responses  [][]byte
}

// StartMITM starts one before a host, with a certificate that the host's plugins trust.
func StartMITM(t testing.TB, host *Host) *MITM {
	t.Helper()
	m := &MITM{upstream: host.Stranger(t), target: host.URL}
	m.URL = ServeTLS(t, HostTLS(t, host), m)
	return m
}

// ServeHTTP passes a request on and its answer back.
func (m *MITM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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

// Alter replaces what is done to the messages, and forgets those seen so far.
func (m *MITM) Alter(onRequest func(http.Header, []byte) []byte, onResponse func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.onRequest, m.onResponse, m.requests, m.responses = onRequest, onResponse, nil, nil
}

// Seen returns the messages since the last alter, as they came.
func (m *MITM) Seen() (requests, responses [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests), slices.Clone(m.responses)
}

// Victim is the configuration of an honest plugin that declares all that a
// handshake can carry, and whose connection the man in the middle took over.
// A bound client dials by itself and sees its TLS connection; the other brings
// an HTTP client, behind which it sees none.
func (m *MITM) Victim(t testing.TB, host *Host, bound bool) connectplugin.ClientConfig {
	t.Helper()
	cfg := host.ClientConfig(t, "victim")
	cfg.HostURL = m.URL
	cfg.Plugins = connectplugin.PluginSet{"logger": LoggerPlugin{}, "archive": LoggerPlugin{}}
	cfg.MinProtocolVersion, cfg.MaxProtocolVersion, cfg.ProtocolVersion = 1, 3, 3
	cfg.Metadata.Provides = []connectplugin.ServiceDeclaration{
		{Type: "logger", Version: "1.0.0", Path: "/a.v1.A/"}, {Type: "storage", Version: "2.0.0", Path: "/b.v1.B/"},
	}
	cfg.Metadata.Requires = []connectplugin.ServiceDependency{
		{Type: "cache", MinVersion: ">=1.0", RequiredForStartup: true, WatchForChanges: true}, {Type: "queue", MinVersion: "2.0.0"},
	}
	if !bound {
		cfg.HTTPClient, cfg.TLS = HTTPClient(t, host.StrangerTLS()), nil
	}
	return cfg
}

func (m *MITM) takeRequest(header http.Header, body []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, bytes.Clone(body))
	if m.onRequest == nil {
		return body
	}
	return m.onRequest(header, body)
}

func (m *MITM) takeResponse(body []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.responses = append(m.responses, bytes.Clone(body))
	if m.onResponse == nil {
		return body
	}
	return m.onResponse(body)
}

// MustParse reads a message off the wire.
func MustParse[M proto.Message](t testing.TB, body []byte, m M) M {
	t.Helper()
	if err := proto.Unmarshal(body, m); err != nil {
		t.Fatalf("parse %T: %v", m, err)
	}
	return m
}

// MustMarshal writes a message.
func MustMarshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("marshal %T: %v", m, err)
	}
	return body
}
