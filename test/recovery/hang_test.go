package recovery_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// hang registers a provider that takes connections and questions, and answers none. It enrols
// over a connection that it shares with others like it.
func hang(t *testing.T, host *hosttest.Restartable, conn *wire.Conn, cfg *tls.Config) {
	t.Helper()
	at := hosttest.ServeTLS(t, cfg, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	m := wire.FreshRequest("provider")
	m.Provides = []*connectpluginv1.ServiceDeclaration{{Type: echoType, Version: "1.0.0"}}
	enrolled, err := connectpluginv1connect.NewHandshakeServiceClient(conn.Client, host.URL).Handshake(t.Context(), connect.NewRequest(
		conn.Prove(t, m, true)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = connectpluginv1connect.NewServiceRegistryClient(conn.Client, host.URL).RegisterService(t.Context(), hosttest.WithCredentials(
		&connectpluginv1.RegisterServiceRequest{
			ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": at},
		}, enrolled.Msg.GetRuntimeId(), enrolled.Msg.GetRuntimeToken()))
	if err != nil {
		t.Fatal(err)
	}
}

// However many plugins hang, each for longer than a test lasts, the others are asked in every
// round, and the end of one is noticed.
func TestAudit_USE44_TheHungDelayNobody(t *testing.T) {
	t.Parallel()
	const hung = 70
	host := start(t, instances(2*hung, connectplugin.HealthProbeConfig{
		Interval: 100 * time.Millisecond, Timeout: 2 * hosttest.Wait, FailureThreshold: 1, Lease: time.Hour,
	}))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	conn := wire.Dial(t, host.Host)
	for range hung {
		hang(t, host, conn, cfg)
	}
	c := host.Enrol(t, "provider", hosttest.Declaring([]string{echoType}, nil))
	var asked atomic.Int32
	var ill atomic.Bool
	mux := http.NewServeMux()
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(asking{control{id: c.RuntimeID}, &asked, &ill}))
	at, stop := hosttest.ServeTLSUntil(t, cfg, mux)
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": at},
	})
	if err != nil {
		t.Fatal(err)
	}
	health := func() connectpluginv1.HealthState {
		for _, p := range host.Plugins() {
			if p.RuntimeID == c.RuntimeID() {
				return p.Health
			}
		}
		return connectpluginv1.HealthState_HEALTH_STATE_UNSPECIFIED
	}
	hosttest.Eventually(t, "the one that lives is asked again and again", func() bool { return asked.Load() >= 4 && health() == healthy })
	ill.Store(true)
	hosttest.Eventually(t, "what it says is known", func() bool { return health() == connectpluginv1.HealthState_HEALTH_STATE_DEGRADED })
	stop()
	hosttest.Eventually(t, "its end is noticed", func() bool { return health() == connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY })
}

// asking counts the questions, and is degraded when it is told to be.
type asking struct {
	control

	asked *atomic.Int32
	ill   *atomic.Bool
}

// GetHealth answers as control does.
func (a asking) GetHealth(ctx context.Context, req *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	a.asked.Add(1)
	resp, err := a.control.GetHealth(ctx, req)
	if err == nil && a.ill.Load() {
		resp.Msg.State = connectpluginv1.HealthState_HEALTH_STATE_DEGRADED
	}
	return resp, err
}

// front stands in front of a host, passes everything on, and swallows it from some moment on.
type front struct {
	l       net.Listener
	host    string
	mute    atomic.Bool // nothing is passed on any more
	full    atomic.Bool // nobody is accepted any more
	ended   chan struct{}
	running sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newFront(t *testing.T, host string) *front {
	t.Helper()
	f := &front{l: hosttest.Listen(t), host: host, ended: make(chan struct{})}
	f.running.Go(f.accept)
	t.Cleanup(func() {
		close(f.ended)
		_ = f.l.Close()
		f.cut()
		f.running.Wait()
	})
	return f
}

func (f *front) accept() {
	for {
		c, err := f.l.Accept()
		if err != nil {
			return
		}
		f.hold(c)
		switch {
		case f.full.Load():
			<-f.ended
			return
		case !f.mute.Load():
			f.running.Go(func() { f.pass(c) })
		}
	}
}

func (f *front) hold(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
}

// cut breaks the connections that there are.
func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
}

func (f *front) pass(c net.Conn) {
	to, err := net.Dial("tcp", f.host)
	if err != nil {
		return
	}
	f.hold(to)
	f.running.Go(func() { f.swallow(c, to) })
	f.swallow(to, c)
}

func (f *front) swallow(from, to net.Conn) {
	for data := make([]byte, 64<<10); ; {
		n, err := from.Read(data)
		if err != nil {
			_ = to.Close()
			return
		}
		if !f.mute.Load() {
			_, _ = to.Write(data[:n])
		}
	}
}

// fill has whoever connects from now on wait for ever.
func (f *front) fill(t *testing.T) {
	t.Helper()
	f.full.Store(true)
	raw, err := f.l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var shrunk error
	if err := raw.Control(func(fd uintptr) { shrunk = syscall.Listen(int(fd), 0) }); err != nil || shrunk != nil {
		t.Fatal(err, shrunk)
	}
	for range 100 {
		c, err := net.DialTimeout("tcp", f.l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return
		}
		f.hold(c)
	}
	t.Fatal("the queue of connections is never full")
}

// A provider that is told to end goes in a few seconds, however long its calls may take, where its host says nothing:
// where nobody answers on new connections, where none come about, and where one that stands is silent.
func TestAudit_USE21_AProviderEndsThoughItsHostIsSilent(t *testing.T) {
	t.Parallel()
	for name, silence := range map[string]func(*testing.T, *front){
		"accepts and never answers": func(_ *testing.T, f *front) { f.mute.Store(true); f.cut() },
		"a full backlog":            func(t *testing.T, f *front) { t.Helper(); f.mute.Store(true); f.fill(t); f.cut() },
		"a connection that stands":  func(_ *testing.T, f *front) { f.mute.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, nil)
			f := newFront(t, host.Addr())
			plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
				c.HealthInterval, c.Client.Timeout, c.Client.HostURL = never, hosttest.Wait, "https://"+f.l.Addr().String()
				c.Services = []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}}
			})
			silence(t, f)
			hosttest.Eventually(t, "a call waits", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				began := time.Now()
				return plugin.Client.ReportHealth(ctx, healthy, "", nil) != nil && time.Since(began) > 50*time.Millisecond
			})
			began := time.Now()
			plugin.Stop(t)
			if took := time.Since(began); took > 20*time.Second { // of a minute in which a call may wait
				t.Errorf("ended after %v", took)
			}
		})
	}
}
