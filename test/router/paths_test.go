package router_test

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// Whatever another program could read differently is refused before anything is
// dispatched; sent in raw frames, since clients tidy paths up.
func TestAudit_H30_H31_UncleanRoutesReachNobody(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := echo.NewRig(t, provider, nil)
	id := rig.Provider.Client.RuntimeID()
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
			w := rawhttp.Dial(t, rig.Host)
			for _, protocol := range rawhttp.Types {
				if got := w.CallIn(protocol, w.Fields(rig.Caller, target), echo.Body(t, "evil")); got.Served() {
					t.Errorf("%s: %q was served", protocol, target)
				}
				for _, r := range provider.Take() {
					t.Errorf("%s: %q reached the provider as %q", protocol, target, r.RequestURI)
				}
				clean := w.CallIn(protocol, w.Fields(rig.Caller, base+echo.Unary), echo.Body(t, "honest"))
				if got := provider.Take(); !clean.Served() || len(got) != 1 || got[0].RequestURI != echo.Unary {
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
	inside, outside := &echo.Recorder{Next: echo.Service{}.Handler()}, &echo.Recorder{}
	rig := &echo.Rig{Host: hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))}
	rig.Provider = rig.StartPlugin(t, "other", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{
			{Type: echo.Type, Version: "1.0.0", Path: echo.Base, Handler: inside},
			{Type: "different", Version: "1.0.0", Path: "/different.v1.Different/", Handler: outside},
		}
	})
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	w := rawhttp.Dial(t, rig.Host)
	base := "/services/echo/" + rig.Provider.Client.RuntimeID()
	for _, path := range []string{"/different.v1.Different/Call", "/connectplugin.v1.PluginControl/Shutdown", "/connectplugin.v1.PluginIdentity/SetRuntimeIdentity"} {
		for _, protocol := range rawhttp.Types {
			_ = w.CallIn(protocol, w.Fields(rig.Caller, base+path), echo.Body(t, "evil"))
			for _, r := range inside.Take() {
				if !strings.HasPrefix(r.RequestURI, echo.Base) {
					t.Errorf("%q reached the provider as %q", path, r.RequestURI)
				}
			}
		}
	}
	if got := outside.Take(); len(got) != 0 {
		t.Errorf("a service of another type was reached: %q", got[0].RequestURI)
	}
	for protocol, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), rig.ToProvider(), opts, nil); out.Err != nil {
			t.Errorf("the honest call, %s: %v", protocol, out.Err)
		}
	}
}

// A route names type and provider, and both must be those of one registration
// that the caller may use.
func TestAudit_H27_H28_RouteMustMatchTheRegistration(t *testing.T) {
	t.Parallel()
	provider, different := &echo.Recorder{Next: echo.Service{}.Handler()}, &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := echo.NewRig(t, provider, nil)
	other := rig.StartPlugin(t, "other", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "different", Version: "1.0.0", Path: echo.Base, Handler: different}}
	})
	id, otherID := rig.Provider.Client.RuntimeID(), other.Client.RuntimeID()
	stranger, both := rig.Enrol(t, "stranger", nil), rig.Enrol(t, "both", hosttest.Requiring(echo.Type, "different"))
	for name, wrong := range map[string]echo.Endpoint{
		"type of another provider":      echo.At(rig.URL+"/services/echo/"+otherID, rig.Caller.HTTPClient()),
		"both types allowed":            echo.At(rig.URL+"/services/echo/"+otherID, both.HTTPClient()),
		"both types allowed, exchanged": echo.At(rig.URL+"/services/different/"+id, both.HTTPClient()),
		"forbidden type":                echo.At(rig.URL+"/services/different/"+otherID, rig.Caller.HTTPClient()),
		"forbidden type, own provider":  echo.At(rig.URL+"/services/different/"+id, rig.Caller.HTTPClient()),
		"unknown type":                  echo.At(rig.URL+"/services/unknown/"+id, rig.Caller.HTTPClient()),
		"unknown provider":              echo.At(rig.URL+"/services/echo/provider-unknown", rig.Caller.HTTPClient()),
		"prefix of the provider":        echo.At(rig.URL+"/services/echo/"+id[:len(id)-1], rig.Caller.HTTPClient()),
		"provider in upper case":        echo.At(rig.URL+"/services/echo/"+strings.ToUpper(id), rig.Caller.HTTPClient()),
		"type in upper case":            echo.At(rig.URL+"/services/ECHO/"+id, rig.Caller.HTTPClient()),
		"the caller itself":             echo.At(rig.URL+"/services/echo/"+rig.Caller.RuntimeID(), rig.Caller.HTTPClient()),
		"caller that requires nothing":  echo.At(rig.URL+"/services/echo/"+id, stranger.HTTPClient()),
		"self id in place of the id":    echo.At(rig.URL+"/services/echo/provider", rig.Caller.HTTPClient()),
		"provider and type in exchange": echo.At(rig.URL+"/services/"+id+"/echo", rig.Caller.HTTPClient()),
	} {
		t.Run(name, func(t *testing.T) {
			for protocol, opts := range hosttest.Protocols {
				for kind, call := range echo.Kinds {
					if out := call(t.Context(), wrong, opts, nil); connect.CodeOf(out.Err) != connect.CodeNotFound || out.Messages != nil {
						t.Errorf("%s, %s: %v %v, want not_found", protocol, kind, out.Messages, out.Err)
					}
				}
			}
		})
	}
	if n := len(provider.Take()) + len(different.Take()); n != 0 {
		t.Errorf("%d requests reached a provider", n)
	}
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			out := call(t.Context(), rig.ToProvider(), opts, nil)
			if echo.Want(t, kind, out); out.Err != nil {
				t.Errorf("%s: %v", protocol, out.Err)
			}
		}
	}
}

// Only what RPCs use is forwarded.
func TestAudit_H38_OnlyMethodsOfRPCs(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := echo.NewRig(t, provider, nil)
	w := rawhttp.Dial(t, rig.Host)
	target := "/services/echo/" + rig.Provider.Client.RuntimeID() + echo.Look
	query := "?connect=v1&encoding=proto&base64=1&message=CgJhYg"
	for _, method := range []string{"PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "PRI", "post", "Get"} {
		for _, path := range []string{target, target + query} {
			for _, protocol := range rawhttp.Types {
				got := w.CallIn(protocol, w.Fields(rig.Caller, path, ":method", method), nil)
				if got.Served() || len(provider.Take()) != 0 {
					t.Errorf("%s: %s %s: status %s", protocol, method, path, got.Status)
				}
			}
		}
	}
	if got := w.Call(w.Fields(rig.Caller, target+query, ":method", "GET"), []byte("body")); got.Status == "200" || len(provider.Take()) != 0 {
		t.Errorf("GET with a body: status %s", got.Status)
	}
	tunnel := []hpack.HeaderField{rawhttp.Field(":method", "CONNECT"), rawhttp.Field(":authority", rig.Addr())}
	if got := w.Call(tunnel, nil); got.Status == "200" || len(provider.Take()) != 0 {
		t.Errorf("CONNECT: status %s", got.Status)
	}
	honest := echo.NewClient(rig.ToProvider(), echo.Look, connect.WithHTTPGet(), connect.WithIdempotency(connect.IdempotencyNoSideEffects))
	if _, err := honest.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("ab"))); err != nil {
		t.Errorf("a side-effect-free GET: %v", err)
	}
	if got := provider.Take(); len(got) != 1 || got[0].Method != http.MethodGet {
		t.Errorf("the honest GET reached the provider as %v", got)
	}
	for protocol, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), rig.ToProvider(), opts, nil); out.Err != nil {
			t.Errorf("POST, %s: %v", protocol, out.Err)
		}
	}
}
