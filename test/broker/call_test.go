package broker_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// The capability knows its caller, and none of its credentials.
func TestAudit_H21_CapabilitySeesTheCallerAndNoToken(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var callers []connectplugin.Caller
	service := echo.Service{}.Handler()
	rig := newCapabilityRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := connectplugin.CallerFromContext(r.Context())
		mu.Lock()
		callers = append(callers, c)
		mu.Unlock()
		service.ServeHTTP(w, r)
	}), nil)
	owner := rig.Enrol(t, "both", nil)
	conn, err := owner.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), conn, opts, http.Header{
			"X-Plugin-Caller-Id": {"admin", "root"}, "Cookie": {"a=b"}, "X-App": {"1"},
		}))
		for _, r := range rig.seen.Take() {
			if got := r.Header["X-Plugin-Caller-Id"]; len(got) != 1 || got[0] != owner.RuntimeID() {
				t.Errorf("X-Plugin-Caller-Id is %q", got)
			}
			for _, name := range []string{"Authorization", "X-Plugin-Runtime-Id", "Cookie"} {
				if len(r.Header[name]) > 0 {
					t.Errorf("the capability saw %s", name)
				}
			}
			if r.Header.Get("X-App") != "1" || r.URL.Path != r.RequestURI {
				t.Errorf("X-App %q, path %q, target %q", r.Header.Get("X-App"), r.URL.Path, r.RequestURI)
			}
		}
	})
	for _, c := range callers {
		if c.RuntimeID != owner.RuntimeID() || c.SelfID != "both" {
			t.Errorf("caller %+v", c)
		}
	}
}

// One of the host's own plugins is told its caller by the host alone.
func TestAudit_REG12_HostPluginsAreToldTheCaller(t *testing.T) {
	t.Parallel()
	logger := &hosttest.RecordingLogger{}
	for public, list := range map[bool][]string{true: {"*"}, false: nil} {
		host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Public: list, Plugins: map[string]connectplugin.PluginPolicy{
				"api": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"logger"} }),
			}}
			c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
			c.Impls = map[string]any{"logger": logger}
		})
		api := host.Enrol(t, "api", nil)
		logAs(t, echo.At(host.URL, api.HTTPClient()), "X-Plugin-Caller-Id", "admin")
		if public {
			logAs(t, echo.At(host.URL, host.Stranger(t)), "X-Plugin-Caller-Id", "admin")
		}
		_, _, headers := logger.Got()
		for i, h := range headers {
			want := []string{api.RuntimeID()}
			if i == 1 {
				want = nil
			}
			if got := h["X-Plugin-Caller-Id"]; len(got) != len(want) || len(want) == 1 && got[0] != want[0] {
				t.Errorf("public %v: call %d: X-Plugin-Caller-Id is %q, want %q", public, i, got, want)
			}
		}
		logger.Reset()
	}
}

// logAs logs a line with a header field.
func logAs(t *testing.T, to echo.Endpoint, name, value string) {
	t.Helper()
	req := connect.NewRequest(&loggerv1.LogRequest{Message: "hello"})
	req.Header().Set(name, value)
	if _, err := loggerv1connect.NewLoggerClient(to.Client, to.Base).Log(t.Context(), req); err != nil {
		t.Errorf("Log: %v", err)
	}
}

// hungRig is a capability whose handler hangs until the test ends, whatever its
// context says.
type hungRig struct {
	*capabilityRig

	begun chan struct{}
}

func newHungRig(t *testing.T, edit func(*connectplugin.ServeConfig)) *hungRig {
	t.Helper()
	r := &hungRig{begun: make(chan struct{}, 100)}
	release := make(chan struct{})
	service := echo.Service{}.Handler()
	r.capabilityRig = newCapabilityRig(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Hang") == "" {
			service.ServeHTTP(w, req)
			return
		}
		r.begun <- struct{}{}
		<-release
	}), edit)
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	return r
}

// A capability that hangs holds up nobody: no other call, no grant, no
// registration of capabilities.
func TestAudit_H22_HungCapabilityHoldsUpNobody(t *testing.T) {
	t.Parallel()
	rig := newHungRig(t, nil)
	owner, other := rig.Enrol(t, "both", nil), rig.Enrol(t, "thief", nil)
	conn, err := owner.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for protocol := range hosttest.Protocols {
		for kind := range echo.Kinds {
			go func() { _ = echo.Kinds[kind](ctx, conn, hosttest.Protocols[protocol], http.Header{"X-Hang": {"1"}}) }()
			hosttest.Arrival(t, rig.begun)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, c := range []*connectplugin.Client{owner, other} {
			again, err := c.Capability(t.Context(), echo.Type, "")
			if err != nil {
				t.Errorf("a grant: %v", err)
				return
			}
			for kind, call := range echo.Kinds {
				echo.Want(t, kind, call(t.Context(), again, nil, nil))
			}
		}
		rig.broker.RegisterCapability(hosttest.NewCapability(rig.seen, "third", "1.0.0"))
		if n := len(rig.broker.ListCapabilities()); n != 3 {
			t.Errorf("%d capabilities", n)
		}
		grant := rig.mustGrant(t, owner, "different")
		if !rig.broker.RevokeGrant(grant.GetGrantId()) || !rig.Revoke(owner.RuntimeID()) {
			t.Error("nothing to revoke")
		}
	}()
	hosttest.Arrival(t, done)
}

// A capability that hangs does not hold up the host's shutdown beyond its grace.
func TestAudit_H22_HungCapabilityDoesNotHoldUpShutdown(t *testing.T) {
	t.Parallel()
	rig := newHungRig(t, func(c *connectplugin.ServeConfig) { c.GracefulShutdownTimeout = 100 * time.Millisecond })
	conn, err := rig.Enrol(t, "both", nil).Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan echo.Outcome, 1)
	go func() { ended <- echo.CallBidi(t.Context(), conn, nil, http.Header{"X-Hang": {"1"}}) }()
	hosttest.Arrival(t, rig.begun)
	begun := time.Now()
	rig.Stop(t)
	if d := time.Since(begun); d > hosttest.Wait/2 {
		t.Errorf("shutdown took %v", d)
	}
	if out := hosttest.Arrival(t, ended); out.Err == nil {
		t.Error("the hung call succeeded")
	}
}

// What is refused in a route is refused below a grant.
func TestAudit_H31_UncleanPathsReachNoCapability(t *testing.T) {
	t.Parallel()
	rig := newCapabilityRig(t, echo.Service{}.Handler(), nil)
	owner := rig.Enrol(t, "both", nil)
	grant := rig.mustGrant(t, owner, echo.Type)
	base := "/capabilities/echo/" + grant.GetGrantId()
	w := rawhttp.Dial(t, rig.Host)
	call := func(protocol, target string) rawhttp.Answer {
		fields := w.Fields(owner, target)
		for i := range fields {
			if fields[i].Name == "authorization" {
				fields[i].Value = "Bearer " + grant.GetBearerToken()
			}
		}
		return w.CallIn(protocol, fields, echo.Body(t, "ab"))
	}
	for _, suffix := range []string{
		"/%2e%2e/x", "/../x", "/./x", "//x", "/a%2fb", `/a\b`, "/a%5cb", "/a%00", "/a%3fb", "/a%23b", "/a;b", "/a%252e", "/a#b", "/\u00e4", "/..",
	} {
		for _, protocol := range rawhttp.Types {
			if got := call(protocol, base+suffix); got.Served() {
				t.Errorf("%s: %q was served", protocol, suffix)
			}
		}
		for _, r := range rig.seen.Take() {
			t.Errorf("%q reached the capability as %q", suffix, r.RequestURI)
		}
	}
	for _, protocol := range rawhttp.Types {
		if got := call(protocol, base+echo.Unary); !got.Served() || len(rig.seen.Take()) != 1 {
			t.Errorf("the honest call, %s: %+v", protocol, got)
		}
	}
}

// The broker and the router work behind a server of the user's own.
func TestMountedHandlers_ServeCallsOfTheHost(t *testing.T) {
	t.Parallel()
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(hosttest.NewCapability(echo.Service{}.Handler(), echo.Type, "1.0.0"))
	var router *connectplugin.ServiceRouter
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		router = connectplugin.NewServiceRouter(connectplugin.NewHandshakeServer(c), nil, nil)
		c.ServiceRouter, c.CapabilityBroker = router, broker
	})
	mux := http.NewServeMux()
	mux.Handle("/services/", router)
	mux.Handle("/", broker.Handler())
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	client := &identified{server.Client(), rig.Caller.RuntimeID(), rig.Caller.RuntimeToken()}
	to := echo.At(server.URL+"/services/echo/"+rig.Provider.Client.RuntimeID(), client)
	resp, err := connectpluginv1connect.NewCapabilityBrokerClient(client, server.URL).RequestCapability(t.Context(),
		connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: echo.Type}))
	if err != nil {
		t.Fatal(err)
	}
	grant := resp.Msg.GetGrant()
	granted := echo.At(server.URL+"/capabilities/echo/"+grant.GetGrantId(), server.Client())
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), to, opts, nil))
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), granted, opts, bearerOf(grant)))
		for what, out := range map[string]echo.Outcome{
			"route without credentials":      echo.Kinds[kind](t.Context(), echo.At(to.Base, server.Client()), opts, nil),
			"capability without credentials": echo.Kinds[kind](t.Context(), granted, opts, nil),
		} {
			if connect.CodeOf(out.Err) != connect.CodeUnauthenticated {
				t.Errorf("%s: %v, want unauthenticated", what, out.Err)
			}
		}
	})
}

// identified is an HTTP client with the credentials of a runtime identity.
type identified struct {
	next             *http.Client
	runtimeID, token string
}

func (c *identified) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-Plugin-Runtime-Id", c.runtimeID)
	r.Header.Set("Authorization", "Bearer "+c.token)
	return c.next.Do(r)
}

// Who puts a caller into a context says so to tests; where the host knows who calls, that stands.
func TestWithCaller_IsForTests(t *testing.T) {
	t.Parallel()
	forged := connectplugin.Caller{RuntimeID: "admin-1", SelfID: "admin", Rights: connectplugin.Rights{Provides: []string{"all"}}}
	if c, ok := connectplugin.CallerFromContext(connectplugin.WithCaller(t.Context(), forged)); !ok || c.SelfID != "admin" || len(c.Rights.Provides) != 1 {
		t.Errorf("in a test the caller is %+v, %v", c, ok)
	}
	seen := make(chan connectplugin.Caller, 1)
	service := echo.Service{}.Handler()
	rig := newCapabilityRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := connectplugin.CallerFromContext(connectplugin.WithCaller(r.Context(), forged))
		seen <- c
		service.ServeHTTP(w, r)
	}), nil)
	owner := rig.Enrol(t, "both", nil)
	conn, err := owner.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
	if c := hosttest.Arrival(t, seen); c.RuntimeID != owner.RuntimeID() || c.SelfID != "both" {
		t.Errorf("on a host the caller is %+v", c)
	}
}
