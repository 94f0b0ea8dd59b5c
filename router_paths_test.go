package connectplugin_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// requestRecorder records the requests that reach it and hands them on.
type requestRecorder struct {
	next http.Handler // nil answers 200

	mu       sync.Mutex
	requests []*http.Request
}

func (s *requestRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Clone(context.WithoutCancel(r.Context())))
	s.mu.Unlock()
	if s.next != nil {
		s.next.ServeHTTP(w, r)
	}
}

// take returns what was recorded, and forgets it.
func (s *requestRecorder) take() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}

// echoBody is a Connect unary request's body.
func echoBody(t *testing.T, value string) []byte {
	t.Helper()
	raw, err := proto.Marshal(wrapperspb.String(value))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// Whatever another program could read differently is refused before anything is
// dispatched; sent in raw frames, since clients tidy paths up.
func TestAudit_H30_H31_UncleanRoutesReachNobody(t *testing.T) {
	t.Parallel()
	provider := &requestRecorder{next: echoService{}.handler()}
	rig := newEchoRig(t, provider, nil)
	id := rig.provider.Client.RuntimeID()
	base := "/services/echo/" + id
	for name, target := range map[string]string{
		"escaped dots":                  base + "/%2e%2e/test.v1.Echo/Unary",
		"escaped dots, upper case":      base + "/%2E%2E/test.v1.Echo/Unary",
		"half escaped dots":             base + "/.%2e/test.v1.Echo/Unary",
		"dots":                          base + "/../" + id + "/test.v1.Echo/Unary",
		"dot":                           base + "/./test.v1.Echo/Unary",
		"dots at the end":               base + "/test.v1.Echo/Unary/..",
		"out of the prefix":             base + "/../../../connectplugin.v1.ServiceRegistry/RegisterService",
		"escaped slash":                 base + "/test.v1.Echo%2fUnary",
		"escaped slash, upper case":     base + "/test.v1.Echo%2FUnary",
		"escaped slash before the id":   "/services/echo%2f" + id + "/test.v1.Echo/Unary",
		"empty segment":                 base + "//test.v1.Echo/Unary",
		"empty segments in front":       "//services/echo/" + id + "/test.v1.Echo/Unary",
		"empty type":                    "/services//" + id + "/test.v1.Echo/Unary",
		"empty provider":                "/services/echo//test.v1.Echo/Unary",
		"backslash":                     base + `/test.v1.Echo\Unary`,
		"backslash dots":                base + `/..\test.v1.Echo/Unary`,
		"escaped backslash":             base + "/test.v1.Echo%5cUnary",
		"escaped backslash, upper case": base + "/..%5Ctest.v1.Echo/Unary",
		"escaped NUL":                   base + "/test.v1.Echo/Unary%00",
		"escaped newline":               base + "/test.v1.Echo/Unary%0a",
		"escaped carriage return":       base + "/test.v1.Echo/Unary%0d%0aX-Plugin-Caller-Id:%20admin",
		"escaped question mark":         base + "/test.v1.Echo/Unary%3fa=b",
		"escaped hash":                  base + "/test.v1.Echo/Unary%23a",
		"hash":                          base + "/test.v1.Echo/Unary#a",
		"hash in the query":             base + "/test.v1.Echo/Unary?a#b",
		"blank in the query":            base + "/test.v1.Echo/Unary?a b",
		"semicolon":                     base + "/test.v1.Echo/Unary;a=b",
		"semicolon in a segment":        base + ";a/test.v1.Echo/Unary",
		"escaped semicolon":             base + "/test.v1.Echo/Unary%3b",
		"doubly escaped dots":           base + "/%252e%252e/test.v1.Echo/Unary",
		"doubly escaped slash":          base + "/test.v1.Echo%252fUnary",
		"needless escape":               base + "/test.v1.Echo/%55nary",
		"escape in the type":            "/services/ech%6f/" + id + "/test.v1.Echo/Unary",
		"overlong UTF-8 slash":          base + "/test.v1.Echo%c0%afUnary",
		"fullwidth dots":                base + "/\uff0e\uff0e/test.v1.Echo/Unary",
		"fullwidth slash":               base + "/test.v1.Echo\uff0fUnary",
		"not UTF-8":                     base + "/test.v1.Echo/Unary\xff",
		"blank":                         base + "/test.v1.Echo/ Unary",
		"absolute form":                 rig.URL + base + "/test.v1.Echo/Unary",
		"absolute form elsewhere":       "https://evil.example" + base + "/test.v1.Echo/Unary",
		"absolute form, escaped":        rig.URL + base + "/%2e%2e/test.v1.Echo/Unary",
		"scheme-relative":               "//evil.example" + base + "/test.v1.Echo/Unary",
		"asterisk":                      "*",
		"no slash in front":             "services/echo/" + id + "/test.v1.Echo/Unary",
		"no rest":                       base,
		"only a slash":                  base + "/",
	} {
		t.Run(name, func(t *testing.T) {
			w := dialRaw(t, rig.Host)
			for _, protocol := range rawTypes {
				if got := w.callIn(protocol, w.fields(rig.caller, target), echoBody(t, "evil")); got.served() {
					t.Errorf("%s: %q was served", protocol, target)
				}
				for _, r := range provider.take() {
					t.Errorf("%s: %q reached the provider as %q", protocol, target, r.RequestURI)
				}
				clean := w.callIn(protocol, w.fields(rig.caller, base+echoUnary), echoBody(t, "honest"))
				if got := provider.take(); !clean.served() || len(got) != 1 || got[0].RequestURI != echoUnary {
					t.Errorf("%s: the honest route beside it: %+v, %d requests", protocol, clean, len(got))
				}
			}
		})
	}
}

// Where a path is not clean, it does not become so on the way out either: a
// registered path is a prefix that no route leaves.
func TestAudit_H28_RouteStaysBelowTheRegisteredPath(t *testing.T) {
	t.Parallel()
	inside, outside := &requestRecorder{next: echoService{}.handler()}, &requestRecorder{}
	rig := &echoRig{Host: hosttest.Start(t, withPolicy(echoPolicy()))}
	rig.provider = rig.StartPlugin(t, "other", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{
			{Type: echoType, Version: "1.0.0", Path: echoBase, Handler: inside},
			{Type: "different", Version: "1.0.0", Path: "/different.v1.Different/", Handler: outside},
		}
	})
	rig.caller = rig.Enrol(t, "caller", requires(echoType))
	w := dialRaw(t, rig.Host)
	base := "/services/echo/" + rig.provider.Client.RuntimeID()
	for _, path := range []string{"/different.v1.Different/Call", "/connectplugin.v1.PluginControl/Shutdown", "/connectplugin.v1.PluginIdentity/SetRuntimeIdentity"} {
		for _, protocol := range rawTypes {
			_ = w.callIn(protocol, w.fields(rig.caller, base+path), echoBody(t, "evil"))
			for _, r := range inside.take() {
				if !strings.HasPrefix(r.RequestURI, echoBase) {
					t.Errorf("%q reached the provider as %q", path, r.RequestURI)
				}
			}
		}
	}
	if got := outside.take(); len(got) != 0 {
		t.Errorf("a service of another type was reached: %q", got[0].RequestURI)
	}
	for protocol, opts := range protocols {
		if out := callUnary(t.Context(), rig.toProvider(), opts, nil); out.err != nil {
			t.Errorf("the honest call, %s: %v", protocol, out.err)
		}
	}
}

// A route names type and provider, and both must be those of one registration
// that the caller may use.
func TestAudit_H27_H28_RouteMustMatchTheRegistration(t *testing.T) {
	t.Parallel()
	provider, different := &requestRecorder{next: echoService{}.handler()}, &requestRecorder{next: echoService{}.handler()}
	rig := newEchoRig(t, provider, nil)
	other := rig.StartPlugin(t, "other", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "different", Version: "1.0.0", Path: echoBase, Handler: different}}
	})
	id, otherID := rig.provider.Client.RuntimeID(), other.Client.RuntimeID()
	stranger, both := rig.Enrol(t, "stranger", nil), rig.Enrol(t, "both", requires(echoType, "different"))
	for name, wrong := range map[string]baseAt{
		"type of another provider":      at(rig.URL+"/services/echo/"+otherID, rig.caller.HTTPClient()),
		"both types allowed":            at(rig.URL+"/services/echo/"+otherID, both.HTTPClient()),
		"both types allowed, exchanged": at(rig.URL+"/services/different/"+id, both.HTTPClient()),
		"forbidden type":                at(rig.URL+"/services/different/"+otherID, rig.caller.HTTPClient()),
		"forbidden type, own provider":  at(rig.URL+"/services/different/"+id, rig.caller.HTTPClient()),
		"unknown type":                  at(rig.URL+"/services/unknown/"+id, rig.caller.HTTPClient()),
		"unknown provider":              at(rig.URL+"/services/echo/provider-unknown", rig.caller.HTTPClient()),
		"prefix of the provider":        at(rig.URL+"/services/echo/"+id[:len(id)-1], rig.caller.HTTPClient()),
		"provider in upper case":        at(rig.URL+"/services/echo/"+strings.ToUpper(id), rig.caller.HTTPClient()),
		"type in upper case":            at(rig.URL+"/services/ECHO/"+id, rig.caller.HTTPClient()),
		"the caller itself":             at(rig.URL+"/services/echo/"+rig.caller.RuntimeID(), rig.caller.HTTPClient()),
		"caller that requires nothing":  at(rig.URL+"/services/echo/"+id, stranger.HTTPClient()),
		"self id in place of the id":    at(rig.URL+"/services/echo/provider", rig.caller.HTTPClient()),
		"provider and type in exchange": at(rig.URL+"/services/"+id+"/echo", rig.caller.HTTPClient()),
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, opts := range protocols {
				for kind, call := range echoKinds {
					if out := call(t.Context(), wrong, opts, nil); connect.CodeOf(out.err) != connect.CodeNotFound || out.messages != nil {
						t.Errorf("%s, %s: %v %v, want not_found", protocol, kind, out.messages, out.err)
					}
				}
			}
		})
	}
	if n := len(provider.take()) + len(different.take()); n != 0 {
		t.Errorf("%d requests reached a provider", n)
	}
	for protocol, opts := range protocols {
		for kind, call := range echoKinds {
			out := call(t.Context(), rig.toProvider(), opts, nil)
			if wantEcho(t, kind, out); out.err != nil {
				t.Errorf("%s: %v", protocol, out.err)
			}
		}
	}
}

// Only what RPCs use is forwarded.
func TestAudit_H38_OnlyMethodsOfRPCs(t *testing.T) {
	t.Parallel()
	provider := &requestRecorder{next: echoService{}.handler()}
	rig := newEchoRig(t, provider, nil)
	w := dialRaw(t, rig.Host)
	target := "/services/echo/" + rig.provider.Client.RuntimeID() + echoLook
	query := "?connect=v1&encoding=proto&base64=1&message=CgJhYg"
	for _, method := range []string{"PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "PRI", "post", "Get"} {
		for _, path := range []string{target, target + query} {
			for _, protocol := range rawTypes {
				got := w.callIn(protocol, w.fields(rig.caller, path, ":method", method), nil)
				if got.served() || len(provider.take()) != 0 {
					t.Errorf("%s: %s %s: status %s", protocol, method, path, got.status)
				}
			}
		}
	}
	if got := w.call(w.fields(rig.caller, target+query, ":method", "GET"), []byte("body")); got.status == "200" || len(provider.take()) != 0 {
		t.Errorf("GET with a body: status %s", got.status)
	}
	tunnel := []hpack.HeaderField{hpackField(":method", "CONNECT"), hpackField(":authority", rig.Addr())}
	if got := w.call(tunnel, nil); got.status == "200" || len(provider.take()) != 0 {
		t.Errorf("CONNECT: status %s", got.status)
	}
	honest := echo(rig.toProvider(), echoLook, connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
	if _, err := honest.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("ab"))); err != nil {
		t.Errorf("a side-effect-free GET: %v", err)
	}
	if got := provider.take(); len(got) != 1 || got[0].Method != http.MethodGet {
		t.Errorf("the honest GET reached the provider as %v", got)
	}
	for protocol, opts := range protocols {
		if out := callUnary(t.Context(), rig.toProvider(), opts, nil); out.err != nil {
			t.Errorf("POST, %s: %v", protocol, out.err)
		}
	}
}
