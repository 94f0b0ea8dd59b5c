package router_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/rawhttp"
)

// A provider in the host's process is called as any other: every kind of RPC in
// every protocol, fields by allow-list in both directions, its caller stated by the
// host and nobody's credentials.
func TestAudit_H56_MemoryProviderIsCalledAsAnyOther(t *testing.T) {
	t.Parallel()
	seen := &echo.Recorder{Next: decorated{echo.Service{}.Handler(connect.WithInterceptors(withTrailer{}))}}
	rig := newMemoryRig(t, seen, nil)
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		client := &tapClient{next: rig.Caller.HTTPClient()}
		header := passingFields.Clone()
		maps.Copy(header, forbiddenFields)
		out := echo.Kinds[kind](t.Context(), echo.At(rig.toMemory().Base, client), opts, header)
		echo.Want(t, kind, out)
		got := seen.Take()
		if len(got) != 1 {
			t.Fatalf("%d requests arrived", len(got))
		}
		rig.checkMemoryRequest(t, got[0])
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
		gzip := append(slices.Clone(opts), connect.WithSendGzip())
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), rig.toMemory(), gzip, nil))
		seen.Take()
	})
	if err := lookAt(t.Context(), rig.toMemory(), true); err != nil {
		t.Errorf("a side-effect-free GET: %v", err)
	}
	if got := seen.Take(); len(got) != 1 || got[0].Method != http.MethodGet || !strings.HasPrefix(got[0].RequestURI, echo.Look+"?") {
		t.Errorf("the GET arrived as %v", got)
	}
	if !rig.Lifecycle().ShouldRouteTraffic(rig.providerID) || rig.Usage().Handlers != 1 {
		t.Error("the provider is gone")
	}
}

// What is refused towards a plugin elsewhere is refused towards one in the host's
// process, and does not reach it.
func TestAudit_H56_MemoryProviderIsGuardedAsAnyOther(t *testing.T) {
	t.Parallel()
	seen := &echo.Recorder{Next: echo.Service{}.Handler()}
	rig := newMemoryRig(t, seen, nil)
	stranger, nobody := rig.Enrol(t, "stranger", nil), rig.Stranger(t)
	base := rig.toMemory().Base
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		for name, c := range map[string]struct {
			to   echo.Endpoint
			code connect.Code
		}{
			"no credentials":           {echo.At(base, nobody), connect.CodeUnauthenticated},
			"not declared as required": {echo.At(base, stranger.HTTPClient()), connect.CodeNotFound},
			"another type":             {echo.At(rig.URL+"/services/different/"+rig.providerID, rig.Caller.HTTPClient()), connect.CodeNotFound},
			"another provider":         {rig.Route(rig.providerID + "x"), connect.CodeNotFound},
		} {
			if out := echo.Kinds[kind](t.Context(), c.to, opts, nil); connect.CodeOf(out.Err) != c.code {
				t.Errorf("%s: %v %v, want %v", name, out.Messages, out.Err, c.code)
			}
		}
		wantNone(t, seen)
	})
	w := rawhttp.Dial(t, rig.Host)
	path := "/services/echo/" + rig.providerID
	for _, suffix := range []string{"/%2e%2e/x", "/../x", "//x", "/test.v1.Echo%2fUnary", `/test.v1.Echo\Unary`, "/test.v1.Echo/Unary;a", "/test.v1.Echo/Unary#a"} {
		if got := w.Call(w.Fields(rig.Caller, path+suffix), echo.Body(t, "evil")); got.Status == "200" {
			t.Errorf("%q was served", suffix)
		}
	}
	for _, method := range []string{"PUT", "DELETE", "HEAD", "OPTIONS"} {
		if got := w.Call(w.Fields(rig.Caller, path+echo.Unary, ":method", method), nil); got.Status == "200" {
			t.Errorf("%s was served", method)
		}
	}
	wantNone(t, seen)
	if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); out.Err != nil {
		t.Errorf("the honest call: %v", out.Err)
	}
}

// A panic of the provider ends its call, and nothing else of the host, and what it says
// forges no line of the log.
func TestAudit_H56_PanicOfAMemoryProvider(t *testing.T) {
	t.Parallel()
	var panics atomic.Bool
	var asText, asJSON hosttest.Buffer
	logs := twoLogs{slog.NewTextHandler(&asText, nil), slog.NewJSONHandler(&asJSON, nil), new(atomic.Int64)}
	hanging := hanging(func(context.Context) error { panic("out of the provider" + strings.Join(logForgeries, "")) }).Handler()
	honest := echo.Service{}.Handler()
	rig := newMemoryRig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if panics.Load() {
			hanging.ServeHTTP(w, r)
			return
		}
		honest.ServeHTTP(w, r)
	}), func(c *connectplugin.ServeConfig) { c.Logger = slog.New(logs) })
	untouched := echo.NewClient(rig.toMemory(), echo.Bidi).CallBidiStream(t.Context())
	echo.SendWant(t, untouched, "before", "before")
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		panics.Store(true) // after the first message, where it is a stream
		out := echo.Kinds[kind](t.Context(), rig.toMemory(), opts, nil)
		if connect.CodeOf(out.Err) != connect.CodeUnavailable || strings.Contains(out.Err.Error(), "out of the provider") {
			t.Errorf("%v %v, want unavailable", out.Messages, out.Err)
		}
		panics.Store(false)
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), rig.toMemory(), opts, nil))
	})
	echo.SendWant(t, untouched, "after", "after")
	_ = untouched.CloseRequest()
	_ = untouched.CloseResponse()
	rig.Stop(t)
	checkLog(t, &asText, logs.records.Load(), func(line string) bool { return strings.HasPrefix(line, "time=2") })
	checkLog(t, &asJSON, logs.records.Load(), func(line string) bool { return json.Valid([]byte(line)) })
	if !strings.Contains(asText.String(), "out of the provider") {
		t.Error("the log does not say what happened")
	}
}

// Whatever ends the calls to a plugin elsewhere ends those to one in the host's
// process, with the same code, and the provider learns of it.
func TestAudit_H56_EndsOfCallsToAMemoryProvider(t *testing.T) {
	t.Parallel()
	service, begun := hangingUntilTheEnd(t)
	handler := service.Handler()
	rig := newMemoryRig(t, handler, nil)
	ends := map[string]struct {
		end  func(t *testing.T, giveUp func())
		code connect.Code
	}{
		"caller gives up": {func(_ *testing.T, giveUp func()) { giveUp() }, connect.CodeCanceled},
		"caller revoked":  {func(*testing.T, func()) { rig.Revoke(rig.Caller.RuntimeID()) }, connect.CodeUnauthenticated},
		"policy withdraws the type from the caller": {func(t *testing.T, _ func()) {
			rig.changePolicy(t, func(p *connectplugin.Policy) { p.Plugins["caller"] = hosttest.Allow(nil) })
		}, connect.CodeNotFound},
		"policy withdraws the type from the provider": {func(t *testing.T, _ func()) {
			rig.changePolicy(t, func(p *connectplugin.Policy) { p.Plugins["provider"] = hosttest.Allow(nil) })
		}, connect.CodeNotFound},
		"provider revoked": {func(t *testing.T, _ func()) {
			rig.Revoke(rig.providerID)
			if out := echo.CallUnary(t.Context(), rig.toMemory(), nil, nil); connect.CodeOf(out.Err) != connect.CodeUnavailable {
				t.Errorf("a call afterwards: %v, want unavailable", out.Err)
			}
		}, connect.CodeUnavailable},
	}
	for name, c := range ends {
		t.Run(name, func(t *testing.T) {
			echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
				rig.renew(t, handler)
				ctx, giveUp := context.WithCancel(t.Context())
				defer giveUp()
				ended, at := hangsAt(ctx, t, rig.toMemory(), begun, kind, opts)
				c.end(t, giveUp)
				wantEnd(t, ended, at, c.code)
			})
			if c.code == connect.CodeCanceled {
				return // the caller is not there to be told
			}
			eachFlow(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
				rig.renew(t, handler)
				stream := flows(t, rig.toMemory(), begun, kind, opts)
				c.end(t, nil)
				stream.wantEnd(t, c.code)
			})
		})
	}
}

// A shutdown lets calls to a provider in the host's process finish, and cuts off
// those that do not within its grace.
func TestAudit_H56_ShutdownWithAMemoryProvider(t *testing.T) {
	t.Parallel()
	for name, finishes := range map[string]bool{"finishes": true, "hangs": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service, begun := hangingUntilTheEnd(t)
			release := make(chan struct{})
			if finishes {
				service.Unary = func(ctx context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
					begun <- ctx
					<-release
					return connect.NewResponse(req.Msg), nil
				}
			}
			rig := newMemoryRig(t, service.Handler(), func(c *connectplugin.ServeConfig) {
				if c.GracefulShutdownTimeout = hosttest.Wait; !finishes {
					c.GracefulShutdownTimeout = 100 * time.Millisecond
				}
			})
			ended, at := hangsAt(t.Context(), t, rig.toMemory(), begun, "unary", nil)
			stopped := make(chan struct{})
			go func() { defer close(stopped); _ = rig.Shutdown(context.Background()) }()
			hosttest.Eventually(t, "new calls are refused", func() bool {
				// A call to nobody, which is not held up by the service if it comes too early.
				return connect.CodeOf(echo.CallUnary(t.Context(), rig.Route("nobody"), nil, nil).Err) == connect.CodeUnavailable
			})
			if close(release); finishes {
				echo.Want(t, "unary", hosttest.Arrival(t, ended))
			} else {
				wantEnd(t, ended, at, connect.CodeUnavailable)
			}
			hosttest.Arrival(t, stopped)
			if n := rig.Usage().Handlers; n != 0 {
				t.Errorf("%d handlers are left", n)
			}
			if err := rig.router.RegisterPluginHandler(rig.providerID, service.Handler()); err == nil {
				t.Error("a handler was registered after the shutdown")
			}
			late := rig.enrolInProcess(t, "provider")
			if err := rig.router.RegisterPluginHandler(late, service.Handler()); !errors.Is(err, connectplugin.ErrHostClosed) {
				t.Errorf("for an identity of after the shutdown: %v", err)
			}
		})
	}
}

// The body of a request is bounded, since it comes into the host's own memory.
func TestAudit_H47_BodiesToAMemoryProviderAreBounded(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	rig := newMemoryRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.MaxCallBytes = most })
	for protocol, opts := range hosttest.Protocols {
		for size, want := range map[int]connect.Code{most / 2: 0, 2 * most: connect.CodeResourceExhausted} {
			_, err := echo.NewClient(rig.toMemory(), echo.Unary, opts...).CallUnary(t.Context(),
				connect.NewRequest(wrapperspb.String(strings.Repeat("x", size))))
			if code := connect.Code(0); err != nil && connect.CodeOf(err) != want || err == nil && want != code {
				t.Errorf("%s, %d bytes: %v, want %v", protocol, size, err, want)
			}
		}
	}
}

// What is recorded of a call to a provider in the host's process has its whole route, as of any other.
func TestAudit_ATK14_MemoryProviderIsAuditedByItsRoute(t *testing.T) {
	t.Parallel()
	rig := newMemoryRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Limits.MaxCallBytes = 1 << 10 })
	client := echo.NewClient(rig.toMemory(), echo.Unary)
	_, err := client.CallUnary(t.Context(), connect.NewRequest(&echo.Text{Value: strings.Repeat("x", 2<<10)}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Fatal(err)
	}
	for _, e := range rig.Audit.Events() {
		if strings.Contains(e.Reason, "Limits.MaxCallBytes") {
			if !strings.HasPrefix(e.Procedure, "/services/") {
				t.Errorf("it is %q", e.Procedure)
			}
			return
		}
	}
	t.Error("the audit does not have it")
}
