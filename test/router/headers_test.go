package router_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// tapClient is an HTTP client that keeps the responses that it saw.
type tapClient struct {
	next connect.HTTPClient

	mu        sync.Mutex
	responses []*http.Response
}

func (c *tapClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.next.Do(r)
	if err == nil {
		c.mu.Lock()
		c.responses = append(c.responses, resp)
		c.mu.Unlock()
	}
	return resp, err
}

// fields returns the header and trailer fields of what it saw.
func (c *tapClient) fields() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []http.Header
	for _, resp := range c.responses {
		_, _ = io.Copy(io.Discard, resp.Body)
		all = append(all, resp.Header, resp.Trailer)
	}
	return all
}

// passingFields belong to the application and have to arrive.
var passingFields = http.Header{
	"X-App":       {"one", "two"},
	"App-Bin":     {"AAEC"},
	"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	"Tracestate":  {"vendor=value"},
	"Baggage":     {"user=alice"},
}

// forbiddenFields belong to nobody beyond one hop, or to the host alone.
var forbiddenFields = http.Header{
	"X-Plugin-Caller-Id":          {"admin", "root"},
	"X_plugin_caller_id":          {"admin"},
	"X-Plugin-Anything":           {"x"},
	"Cookie":                      {"session=1"},
	"Set-Cookie":                  {"session=1"},
	"Proxy-Authorization":         {"Basic eA=="},
	"Proxy-Authenticate":          {"Basic"},
	"Www-Authenticate":            {"Basic"},
	"X-Api-Key":                   {"secret"},
	"X-Auth-Token":                {"secret"},
	"X-Csrf-Token":                {"secret"},
	"Forwarded":                   {"for=10.0.0.1"},
	"X-Forwarded-For":             {"10.0.0.1"},
	"X-Forwarded-Host":            {"evil.example"},
	"X-Forwarded-Proto":           {"http"},
	"X-Real-Ip":                   {"10.0.0.1"},
	"X-Forwarded-Client-Cert":     {"By=x"},
	"X-Original-URL":              {"/admin"},
	"X-Http-Method-Override":      {"DELETE"},
	"Via":                         {"1.1 evil"},
	"Referer":                     {"https://evil.example"},
	"Location":                    {"https://evil.example"},
	"Alt-Svc":                     {`h2="evil.example:443"`},
	"Server":                      {"provider/1.0"},
	"Access-Control-Allow-Origin": {"*"},
	"Strict-Transport-Security":   {"max-age=1"},
	"Content-Security-Policy":     {"default-src *"},
	"Refresh":                     {"0;url=https://evil.example"},
	"Clear-Site-Data":             {`"*"`},
}

// checkEchoFields compares fields at the end of their way with what was sent.
func checkEchoFields(t *testing.T, where string, got http.Header) {
	t.Helper()
	for name := range forbiddenFields {
		if name != "X-Plugin-Caller-Id" && len(got[name]) > 0 {
			t.Errorf("%s: %s passed: %q", where, name, got[name])
		}
	}
	for name, want := range passingFields {
		if !slices.Equal(got[name], want) {
			t.Errorf("%s: %s is %q, want %q", where, name, got[name], want)
		}
	}
}

// Headers pass by allow-list in both directions, trailers too; the host states
// the caller itself.
func TestAudit_PROTO53_FieldsPassByAllowListInEveryProtocol(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: decorated{echo.Service{}.Handler(connect.WithInterceptors(withTrailer{}))}}
	rig := echo.NewRig(t, provider, nil)
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		client := &tapClient{next: rig.Caller.HTTPClient()}
		header := passingFields.Clone()
		maps.Copy(header, forbiddenFields)
		to := echo.At(rig.ToProvider().Base, client)
		out := echo.Kinds[kind](t.Context(), to, opts, header)
		echo.Want(t, kind, out)
		for _, r := range provider.Take() {
			checkEchoFields(t, "request", r.Header)
			if got := r.Header["X-Plugin-Caller-Id"]; !slices.Equal(got, []string{rig.Caller.RuntimeID()}) {
				t.Errorf("X-Plugin-Caller-Id is %q", got)
			}
			for _, name := range []string{"Authorization", "X-Plugin-Runtime-Id"} {
				if len(r.Header[name]) > 0 {
					t.Errorf("the provider saw %s", name)
				}
			}
			if strings.Contains(r.Host, rig.Addr()) {
				t.Errorf("the provider was called as %q, which is the host", r.Host)
			}
		}
		checkEchoFields(t, "response", out.Header)
		for _, fields := range client.fields() {
			for name := range forbiddenFields {
				if len(fields[name]) > 0 || len(fields["Trailer-"+name]) > 0 {
					t.Errorf("response: %s passed", name)
				}
			}
		}
		if got := out.Trailer["X-App-Trailer"]; !slices.Equal(got, []string{"last"}) {
			t.Errorf("trailer: X-App-Trailer is %q", got)
		}
	})
}

// decorated puts fields of either sort on the responses, and forbidden ones on
// their trailers.
type decorated struct{ next http.Handler }

func (d decorated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	maps.Copy(w.Header(), passingFields)
	maps.Copy(w.Header(), forbiddenFields)
	for name, values := range forbiddenFields {
		w.Header()["Trailer-"+name] = values // of a Connect unary call
	}
	d.next.ServeHTTP(w, r)
	for name, values := range forbiddenFields {
		w.Header()[http.TrailerPrefix+name] = values
	}
}

// withTrailer sets the trailer of an RPC as its protocol has it.
type withTrailer struct{}

func (withTrailer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err == nil {
			resp.Trailer().Set("X-App-Trailer", "last")
		}
		return resp, err
	}
}

func (withTrailer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (withTrailer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		conn.ResponseTrailer().Set("X-App-Trailer", "last")
		return next(ctx, conn)
	}
}

// HTTP/2 has no hop-by-hop fields; a host and a provider that are allowed to
// speak plaintext may meet some in HTTP/1.1, where Connection names more of them.
func TestAudit_PROTO53_ConnectionNamesHopByHopFields(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := newPlaintextRig(t, provider)
	call := func(header http.Header) *http.Request {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, rig.ToProvider().Base+echo.Unary, strings.NewReader(string(echo.Body(t, "ab"))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("X-Plugin-Runtime-Id", rig.Caller.RuntimeID())
		req.Header.Set("Authorization", "Bearer "+rig.Caller.RuntimeToken())
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: false}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		got := provider.Take()
		if len(got) != 1 || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %d requests", resp.StatusCode, len(got))
		}
		return got[0]
	}
	named := call(http.Header{
		"Connection": {"X-Hop, keep-alive", "x-other"}, "Keep-Alive": {"timeout=5"}, "X-Hop": {"1"}, "X-Other": {"1"}, "X-App": {"1"},
	})
	for _, name := range []string{"Connection", "Keep-Alive", "X-Hop", "X-Other"} {
		if len(named.Header[name]) > 0 {
			t.Errorf("%s passed", name)
		}
	}
	if named.Header.Get("X-App") != "1" {
		t.Error("X-App did not pass")
	}
	// Connection cannot take away what the host states.
	if got := call(http.Header{"Connection": {"X-Plugin-Caller-Id"}}).Header.Get("X-Plugin-Caller-Id"); got != rig.Caller.RuntimeID() {
		t.Errorf("X-Plugin-Caller-Id is %q", got)
	}
}

// newPlaintextRig is an Rig without TLS.
func newPlaintextRig(t *testing.T, service http.Handler) *echo.Rig {
	t.Helper()
	rig := &echo.Rig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Authority, c.AllowInsecure = echo.Policy(), nil, true
	})}
	rig.Provider = rig.Provide(t, "provider", service, func(c *connectplugin.PluginServerConfig) {
		c.Client.TLS, c.Client.AllowInsecure = nil, true
	})
	rig.Caller = rig.Enrol(t, "caller", func(c *connectplugin.ClientConfig) {
		c.TLS, c.AllowInsecure = nil, true
		c.Metadata.Requires = hosttest.Requires(echo.Type)
	})
	return rig
}

// Repeated and oddly spelled fields that claim another caller change nothing.
func TestAudit_REG12_CallerIsStatedByTheHost(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := echo.NewRig(t, provider, nil)
	target := "/services/echo/" + rig.Provider.Client.RuntimeID() + echo.Unary
	for name, forged := range map[string][]string{
		"once":        {"x-plugin-caller-id", "admin"},
		"twice":       {"x-plugin-caller-id", "admin", "x-plugin-caller-id", rig.Caller.RuntimeID()},
		"empty":       {"x-plugin-caller-id", ""},
		"underscores": {"x_plugin_caller_id", "admin"},
		"one of each": {"x-plugin_caller-id", "admin", "x_plugin-caller_id", "admin"},
		"a list":      {"x-plugin-caller-id", "admin, root"},
		"the self id": {"x-plugin-self-id", "admin"},
		"nothing":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := rawhttp.Dial(t, rig.Host)
			for _, protocol := range rawhttp.Types {
				got := w.CallIn(protocol, w.Fields(rig.Caller, target, forged...), echo.Body(t, "ab"))
				requests := provider.Take()
				if !got.Served() || len(requests) != 1 {
					t.Fatalf("%s: %+v, %d requests", protocol, got, len(requests))
				}
				for field, values := range requests[0].Header {
					stated := len(values) == 1 && values[0] == map[string]string{
						"X-Plugin-Caller-Id": rig.Caller.RuntimeID(), "X-Plugin-Caller-Self-Id": "caller", "X-Plugin-Caller-Self-Version": "1.0.0",
					}[field]
					if plain := strings.ReplaceAll(strings.ToLower(field), "_", "-"); strings.HasPrefix(plain, "x-plugin-") && !stated {
						t.Errorf("%s: the provider saw %s: %q", protocol, field, values)
					}
				}
				if len(requests[0].Header["X-Plugin-Caller-Id"]) != 1 {
					t.Errorf("%s: the provider does not know its caller", protocol)
				}
			}
		})
	}
}

// Fields that are no fields never reach a provider: the request is refused or
// they are left out.
func TestAudit_REG12_MalformedFieldsDoNotPass(t *testing.T) {
	t.Parallel()
	provider := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := echo.NewRig(t, provider, nil)
	target := "/services/echo/" + rig.Provider.Client.RuntimeID() + echo.Unary
	for name, field := range map[string][2]string{
		"connection":          {"connection", "x-app"},
		"transfer-encoding":   {"transfer-encoding", "chunked"},
		"upgrade":             {"upgrade", "websocket"},
		"te":                  {"te", "gzip"},
		"newline in a value":  {"x-app", "a\r\nx-plugin-caller-id: admin"},
		"NUL in a value":      {"x-app", "a\x00b"},
		"newline in a name":   {"x-app\r\nx-plugin-caller-id", "admin"},
		"colon in a name":     {"x-plugin-caller-id:", "admin"},
		"blank in a name":     {"x-plugin-caller-id ", "admin"},
		"upper case":          {"X-Plugin-Caller-Id", "admin"},
		"late pseudo field":   {":path", "/admin"},
		"unknown pseudo":      {":admin", "1"},
		"a second length":     {"content-length", "0"},
		"non-ASCII name":      {"x-äpp", "1"},
		"credentials in turn": {"authorization", "Bearer other"},
	} {
		t.Run(name, func(t *testing.T) {
			w := rawhttp.Dial(t, rig.Host)
			for _, protocol := range rawhttp.Types {
				fields := append(w.Fields(rig.Caller, target), rawhttp.Field(field[0], field[1]))
				_ = w.CallIn(protocol, fields, echo.Body(t, "ab"))
			}
			for _, r := range provider.Take() {
				for got, values := range r.Header {
					if strings.EqualFold(got, field[0]) && name != "te" || strings.Contains(strings.Join(values, ""), "admin") {
						t.Errorf("the provider saw %s: %q", got, values)
					}
				}
				if r.Header.Get("Te") == "gzip" {
					t.Error("the provider saw te: gzip")
				}
			}
		})
	}
	for protocol, opts := range hosttest.Protocols {
		if out := echo.CallUnary(t.Context(), rig.ToProvider(), opts, nil); out.Err != nil {
			t.Errorf("the honest call, %s: %v", protocol, out.Err)
		}
	}
}
