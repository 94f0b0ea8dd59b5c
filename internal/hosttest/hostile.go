package hosttest

import (
	"crypto/tls"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

// HandshakePath is the path of the handshake.
const HandshakePath = connectpluginv1connect.HandshakeServiceHandshakeProcedure

// HostileHost passes for a host, and answers what a test makes it answer.
type HostileHost struct {
	URL       string
	Authority *connectplugin.Authority

	line *cutListener

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by path; the rest is 404
	paths   []string                    // that were asked for
}

// StartHostileHost starts one; edit, which may be nil, changes its side of TLS.
func StartHostileHost(t *testing.T, edit func(*tls.Config)) *HostileHost {
	t.Helper()
	h := &HostileHost{Authority: NewAuthority(t), answers: map[string]http.HandlerFunc{}}
	cfg, err := h.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(cfg)
	}
	h.line = newCutListener(Listen(t))
	ServeOn(t, h.line, cfg, h)
	h.URL = "https://" + h.line.Addr().String()
	return h
}

// Cut ends every connection as the death of a host does.
func (h *HostileHost) Cut(how Death) { h.line.end(how) }

// ServeHTTP answers as the test says.
func (h *HostileHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	h.paths = append(h.paths, r.URL.Path)
	answer := h.answers[r.URL.Path]
	h.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

// Answer says what a path is answered with.
func (h *HostileHost) Answer(path string, with http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answers[path] = with
}

// AnswerMessage answers a unary call with a message.
func (h *HostileHost) AnswerMessage(path string, m proto.Message) {
	h.Answer(path, func(w http.ResponseWriter, _ *http.Request) {
		body, _ := proto.Marshal(m)
		w.Header().Set("Content-Type", "application/proto")
		_, _ = w.Write(body)
	})
}

// Client makes a client of it, which trusts it; edit may be nil.
func (h *HostileHost) Client(t *testing.T, edit func(*connectplugin.ClientConfig)) *connectplugin.Client {
	t.Helper()
	cfg := connectplugin.ClientConfig{
		HostURL: h.URL, SelfID: "api", TLS: h.Authority.ClientTLS(), Logger: Logger(t),
		MinProtocolVersion: 2, ProtocolVersion: 2, MaxProtocolVersion: 3,
	}
	if edit != nil {
		edit(&cfg)
	}
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Welcome is what an honest host answers to a first handshake.
func Welcome(edit func(*connectpluginv1.HandshakeResponse)) *connectpluginv1.HandshakeResponse {
	m := &connectpluginv1.HandshakeResponse{
		CoreProtocolVersion: 1, AppProtocolVersion: 2, RuntimeId: "api-0123456789abcdefghijklmnop", RuntimeToken: "an-honest-token",
		ServerNonce: make([]byte, 32), TokenExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}
	if edit != nil {
		edit(m)
	}
	return m
}
