package recovery_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// cutAnswers begin an answer, in the protocol of the request, and no more than that.
var cutAnswers = map[string]http.HandlerFunc{
	"the head alone": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
	"a part":         func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0, 0}) },
	"no such thing":  refusing(http.StatusNotFound, ""),
	"a refusal":      refusing(http.StatusForbidden, `{"code":"permission_de`),
	"not now":        refusing(http.StatusTooManyRequests, `{"code":"resource_exhausted",`),
	"a mistake":      refusing(http.StatusBadRequest, `{`),
}

// refusing begins a refusal of Connect's unary calls; in other protocols it begins a message.
func refusing(status int, part string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/proto" {
			w.WriteHeader(http.StatusOK)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(part))
	}
}

// cut begins an answer, and dies.
func cut(die func(hosttest.Death), how hosttest.Death, begin http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		begin(w, r)
		_ = http.NewResponseController(w).Flush()
		select { // in which its peer most likely sees what there is: one that does not has no answer
		case <-time.After(hosttest.Moment):
		case <-r.Context().Done():
		}
		die(how)
	}
}

// An answer that the host's death cuts is unavailable, whatever of it was there, and never
// what its beginning alone would mean.
func TestAudit_USE23_ACutAnswerIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, begin := range cutAnswers {
		for _, how := range hosttest.Deaths {
			t.Run(name+", "+string(how), func(t *testing.T) {
				t.Parallel()
				host := hosttest.StartHostileHost(t, nil)
				host.AnswerMessage(hosttest.HandshakePath, hosttest.Welcome(nil))
				host.Answer("/echo.v1.Echo/Cut", cut(host.Cut, how, begin))
				host.AnswerMessage(sayOnce, wrapperspb.String("x"))
				for transport, c := range cutClients(t, host) {
					calls := func(procedure string, opts ...connect.ClientOption) error {
						_, err := connect.NewClient[text, text](c.HTTPClient(), host.URL+procedure, opts...).
							CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
						return err
					}
					for protocol, opt := range protocols() {
						if err := calls("/echo.v1.Echo/Cut", opt); connect.CodeOf(err) != connect.CodeUnavailable {
							t.Errorf("%s, %s: %v", transport, protocol, err)
						}
					}
					hosttest.Eventually(t, "the next call is answered", func() bool { return calls(sayOnce) == nil })
				}
			})
		}
	}
}

// cutClients are clients with connections of their own, and with an HTTP client.
func cutClients(t *testing.T, host *hosttest.HostileHost) map[string]*connectplugin.Client {
	t.Helper()
	out := map[string]*connectplugin.Client{
		"own": host.Client(t, nil),
		"HTTP client": host.Client(t, func(c *connectplugin.ClientConfig) {
			c.TLS, c.HTTPClient = nil, hosttest.HTTPClient(t, host.Authority.ClientTLS())
		}),
	}
	for name, c := range out {
		if err := c.Connect(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return out
}

// A handshake whose answer the host's death cuts is none that the host refused: a plugin
// goes on.
func TestAudit_USE23_ACutHandshakeIsNoRefusal(t *testing.T) {
	t.Parallel()
	for name, begin := range cutAnswers {
		for _, how := range hosttest.Deaths {
			t.Run(name+", "+string(how), func(t *testing.T) {
				t.Parallel()
				host := hosttest.StartHostileHost(t, nil)
				var asked atomic.Int32
				welcome, _ := proto.Marshal(hosttest.Welcome(nil))
				host.Answer(hosttest.HandshakePath, func(w http.ResponseWriter, r *http.Request) {
					if asked.Add(1) == 1 {
						cut(host.Cut, how, begin)(w, r)
						return
					}
					w.Header().Set("Content-Type", "application/proto")
					_, _ = w.Write(welcome)
				})
				enrolsInTheEnd(t, host)
				if n := asked.Load(); n != 2 {
					t.Errorf("%d handshakes", n)
				}
			})
		}
	}
}

// enrolsInTheEnd runs a plugin until it has enrolled.
func enrolsInTheEnd(t *testing.T, host *hosttest.HostileHost) {
	t.Helper()
	certificate, err := host.Authority.PluginTLS("api")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	enrolled := errors.New("enrolled")
	err = connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{
			HostURL: host.URL, SelfID: "api", TLS: certificate, Logger: hosttest.Logger(t),
			MinProtocolVersion: 2, ProtocolVersion: 2, MaxProtocolVersion: 3,
		},
		OnConnected: func(context.Context, *connectplugin.Client) error { return enrolled },
	})
	if !errors.Is(err, enrolled) {
		t.Errorf("%v", err)
	}
}
