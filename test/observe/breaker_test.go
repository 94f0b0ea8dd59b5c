package observe_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	"github.com/masegraye/connect-plugin-go/gen/admin/v1/adminv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// bad panics or blocks in one of the methods.
type bad struct {
	connectplugin.NopObserver

	in string
	do func()
	on atomic.Bool
}

func (b *bad) at(name string) {
	if b.on.Load() && b.in == name {
		b.do()
	}
}
func (b *bad) CallStarted(ctx context.Context, c connectplugin.CallStart) (context.Context, connectplugin.TraceContext) {
	b.at("CallStarted")
	return ctx, c.Trace
}
func (b *bad) CallRouted(context.Context, connectplugin.RoutedCall) { b.at("CallRouted") }
func (b *bad) CallServed(context.Context, connectplugin.ServedCall) { b.at("CallServed") }
func (b *bad) Handshake(connectplugin.HandshakeEvent)               { b.at("Handshake") }
func (b *bad) Watch(connectplugin.WatchEvent)                       { b.at("Watch") }
func (b *bad) Refusal(connectplugin.RefusalEvent)                   { b.at("Refusal") }

// An observer that panics ends what it was told of and not the host.
func TestBreaker_ObserverPanics(t *testing.T) {
	for _, method := range []string{"CallStarted", "CallRouted", "CallServed", "Handshake", "Watch", "Refusal"} {
		t.Run(method, func(t *testing.T) {
			o := &bad{in: method, do: func() { panic("observer") }}
			rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) { c.Observer = o })
			o.on.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			for range 3 {
				for _, kind := range []string{"unary", "bidi"} {
					out := echo.Kinds[kind](ctx, rig.ToProvider(), nil, nil)
					t.Logf("%s: %.100v", kind, out)
				}
			}
			cfg := rig.ClientConfig(t, "both")
			_, err := hosttest.EnrolOnce(ctx, cfg)
			t.Log("enrol:", err)
			// TLS that fails, plaintext, and an unknown path
			if k, err := net.Dial("tcp", strings.TrimPrefix(rig.URL, "https://")); err == nil {
				_, _ = k.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
				_, _ = io.Copy(io.Discard, k)
				_ = k.Close()
			}

			if res, err := rig.Stranger(t).Get(rig.URL + "/services/echo/x/y"); err == nil {
				t.Log(res.Status)
				_ = res.Body.Close()
			}
			o.on.Store(false)
			deadline := time.Now().Add(5 * time.Second)
			for {
				out := echo.Kinds["unary"](t.Context(), rig.ToProvider(), nil, nil)
				if s := out.Err; s == nil {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("afterwards: %v", s)
				}
				time.Sleep(50 * time.Millisecond)
			}
			if n := rig.Usage().Calls; n > 4 {
				t.Errorf("calls left: %d", n)
			}
		})
	}
}

// A plugin without the right, however it asks.
func TestBreaker_AdminWithoutTheRight(t *testing.T) {
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Admin = &connectplugin.AdminConfig{Followers: 4}
		c.Policy = &connectplugin.Policy{
			Plugins: map[string]connectplugin.PluginPolicy{
				"reader": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{connectplugin.AdminRead} }),
				"star": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
					p.HostPlugins = []string{"*"}
					p.Requires = []string{"*"}
					p.Provides = []string{"*"}
					p.Capabilities = []string{"*"}
				}),
				"none": hosttest.Allow(nil),
			},
		}
	})
	star, none, reader := host.Enrol(t, "star", nil), host.Enrol(t, "none", nil), host.Enrol(t, "reader", nil)
	for name, c := range map[string]connect.HTTPClient{"star": star.HTTPClient(), "none": none.HTTPClient(), "stranger": host.Stranger(t)} {
		for proto, opts := range map[string][]connect.ClientOption{"connect": nil, "grpc": {connect.WithGRPC()}, "web": {connect.WithGRPCWeb()}, "get": {connect.WithHTTPGet()}} {
			_, err := adminv1connect.NewAdminReadServiceClient(c, host.URL, opts...).GetSnapshot(t.Context(), connect.NewRequest(&adminv1.GetSnapshotRequest{}))
			_, err2 := adminv1connect.NewAdminChangeServiceClient(c, host.URL, opts...).Revoke(t.Context(), connect.NewRequest(&adminv1.RevokeRequest{Who: &adminv1.RevokeRequest_SelfId{SelfId: "none"}}))
			if connect.CodeOf(err) != connect.CodePermissionDenied && connect.CodeOf(err) != connect.CodeUnauthenticated || err == nil || err2 == nil {
				t.Errorf("%s %s: %v; %v", name, proto, err, err2)
			}
		}
	}
	for _, path := range []string{"/connectplugin.admin.v1.AdminChangeService/Revoke", "/connectplugin.admin.v1.AdminReadService/../connectplugin.admin.v1.AdminChangeService/Revoke", "//connectplugin.admin.v1.AdminChangeService/Revoke", "/services/connectplugin.admin.v1.AdminChangeService/x/Revoke"} {
		req, _ := http.NewRequest(http.MethodPost, host.URL+path, strings.NewReader(`{"selfId":"none"}`))
		req.Header.Set("Content-Type", "application/json")
		res, err := reader.HTTPClient().Do(req)
		if err != nil {
			t.Log(err)
			continue
		}
		t.Log("reader posts", path, res.Status)
		if res.StatusCode == 200 {
			t.Error("revoked")
		}
		_ = res.Body.Close()
	}
	if err := none.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Error(err)
	}
	// Followers that nobody reads.
	read := adminv1connect.NewAdminReadServiceClient(reader.HTTPClient(), host.URL)
	ok, full := 0, 0
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		s, err := read.Follow(ctx, connect.NewRequest(&adminv1.FollowRequest{Calls: true}))
		if err == nil && s.Receive() {
			ok++
			continue
		}
		full++
		cancel()
	}
	t.Logf("followers: %d ok, %d refused", ok, full)
	if ok != 4 {
		t.Error("not bounded")
	}
}
