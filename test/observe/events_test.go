package observe_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

const handshakePath = "/connectplugin.v1.HandshakeService/Handshake"

// Handshakes and the calls that they are: who was admitted has a name, who was not has none.
func TestObserver_HandshakesAndServedCalls(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echo.Policy()
		c.Observer = connectplugin.JoinObservers(nil, connectplugin.NopObserver{}, o)
	})
	client := host.Enrol(t, "caller", nil)

	if e := one(t, o, &o.handshakes); e.SelfID != "caller" || e.RuntimeID != client.RuntimeID() || e.Renewed || e.Code != 0 || e.Duration <= 0 {
		t.Errorf("handshake %+v", e)
	}

	call := one(t, o, &o.served)
	if call.Procedure != handshakePath || call.Protocol != connectplugin.ProtocolConnect || call.Code != 0 || call.RequestBytes == 0 ||
		call.ResponseBytes == 0 || call.Duration <= 0 || call.Caller != "" {
		t.Errorf("served %+v", call)
	}

	take(t, o, &o.refusals, 0)

	cfg := host.ClientConfig(t, "nobody-knows-me")
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); err == nil {
		t.Fatal("admitted")
	}

	e := one(t, o, &o.handshakes)
	if e != (connectplugin.HandshakeEvent{Code: connect.CodeUnauthenticated, Duration: e.Duration}) {
		t.Errorf("refused handshake %+v", e)
	}

	want := connectplugin.RefusalEvent{Kind: connectplugin.AuditAuthFailed, Where: connectplugin.RefusedRequest}
	if got := one(t, o, &o.refusals); got != want {
		t.Errorf("refusal %+v, want %+v", got, want)
	}

	if call := one(t, o, &o.served); call.Code != connect.CodeUnauthenticated || call.Procedure != handshakePath {
		t.Errorf("served %+v", call)
	}

	for _, path := range []string{"/nowhere/Made.Up", "/connectplugin.v1.HandshakeService/MadeUp"} {
		if _, err := host.Stranger(t).Post(host.URL+path, "application/proto", http.NoBody); err != nil {
			t.Fatal(err)
		}
	}

	if got := one(t, o, &o.refusals); got.Kind != connectplugin.AuditDenied {
		t.Errorf("refusal %+v", got)
	}

	if call := one(t, o, &o.served); call.Procedure != "" || call.Code != connect.CodeUnimplemented {
		t.Errorf("served %+v", call)
	}
}

// A connection whose TLS fails is refused before there is a request.
func TestObserver_ConnectionsThatAreRefused(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	host := hosttest.Start(t, observed(o))

	if conn, err := tls.Dial("tcp", host.Addr(), &tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		_ = conn.Close()
		t.Fatal("TLS 1.2 is spoken")
	}

	want := connectplugin.RefusalEvent{Kind: connectplugin.AuditAuthFailed, Where: connectplugin.RefusedConnection}
	if got := one(t, o, &o.refusals); got != want {
		t.Errorf("refusal %+v, want %+v", got, want)
	}
}

func TestObserver_Watches(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	r := echo.NewRig(t, echo.Service{}.Handler(), observed(o))
	w := hosttest.Watch(t, r.Caller, r.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echo.Type})
	<-w.Events

	want := connectplugin.WatchEvent{SelfID: "caller", RuntimeID: r.Caller.RuntimeID(), Type: echo.Type}
	if got := one(t, o, &o.watches); got != want {
		t.Errorf("begin %+v, want %+v", got, want)
	}

	w.Cancel()

	got := one(t, o, &o.watches)
	if want.Ended, want.Events, want.Duration = true, 1, got.Duration; got != want || got.Duration <= 0 {
		t.Errorf("end %+v, want %+v", got, want)
	}

	if watch := hosttest.Watch(t, r.Caller, r.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "forbidden"}); hosttest.CodeOrZero(<-watch.End) != connect.CodeNotFound {
		t.Error("a forbidden type is watched")
	}

	if got := take(t, o, &o.watches, 0); len(got) != 0 {
		t.Errorf("events of a watch that was refused: %+v", got)
	}
}

// launched is a plugin of the host's own process.
type launched struct{ err error }

func (launched) Metadata() connectplugin.PluginMetadata {
	return connectplugin.PluginMetadata{Version: "1.0.0"}
}

func (l launched) ConnectServer(impl any) (string, http.Handler, error) {
	handler, _ := impl.(http.Handler)
	return echo.Base, handler, l.err
}

func (launched) ConnectClient(string, connect.HTTPClient) (any, error) {
	return nil, errors.ErrUnsupported
}

func TestObserver_LaunchesAndExits(t *testing.T) {
	t.Parallel()

	o := &recorder{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"good": {Provides: []string{echo.Type}}, "bad": {Provides: []string{"bad"}},
		}}
		c.Observer = o
	})
	spec := func(serviceType string, err error) connectplugin.PluginSpec {
		return connectplugin.PluginSpec{
			Provides: []string{serviceType}, Strategy: "in-memory", Plugin: launched{err},
			ImplFactory: func() any { return echo.Service{}.Handler() },
		}
	}
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"good": spec(echo.Type, nil), "bad": spec("bad", errors.New("broken")),
	})

	if _, err := host.Launcher().GetService("good", echo.Type); err != nil {
		t.Fatal(err)
	}

	launch := one(t, o, &o.launches)
	if launch.Name != "good" || launch.RuntimeID == "" || launch.Failed || launch.Pid != 0 || launch.Duration <= 0 {
		t.Errorf("launch %+v", launch)
	}

	if err := host.Launcher().Stop(t.Context(), "good"); err != nil {
		t.Fatal(err)
	}

	exit := one(t, o, &o.exits)
	if exit != (connectplugin.ExitEvent{Name: "good", RuntimeID: launch.RuntimeID, Ran: exit.Ran}) || exit.Ran <= 0 {
		t.Errorf("exit %+v", exit)
	}

	if _, err := host.Launcher().GetService("bad", "bad"); err == nil {
		t.Fatal("a broken plugin was launched")
	}

	if launch := one(t, o, &o.launches); launch != (connectplugin.LaunchEvent{Name: "bad", Failed: true, Duration: launch.Duration}) {
		t.Errorf("launch %+v", launch)
	}
}

// Who connects and leaves before TLS is no refusal; who speaks plaintext is one.
func TestObserver_LeavingIsNoRefusal(t *testing.T) {
	t.Parallel()
	o := &recorder{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Observer = o })
	knock := func(says string) {
		t.Helper()
		c, err := net.Dial("tcp", host.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if says != "" {
			_, _ = io.WriteString(c, says)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for range 3 {
		knock("")
	}
	knock("GET / HTTP/1.1\r\n\r\n")
	count := func() int {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.refusals)
	}
	hosttest.Eventually(t, "the refusal is told", func() bool { return count() > 0 })
	host.Stop(t)
	if n := count(); n != 1 {
		t.Errorf("%d refusals", n)
	}
}
