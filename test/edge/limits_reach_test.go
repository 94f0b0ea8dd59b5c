package edge_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func healthCheck(t *testing.T, r *rig, c *connectplugin.Client) (*connect.Response[connectpluginv1.HealthCheckResponse], error) {
	t.Helper()
	return connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), r.URL).
		Check(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
}

func askGrant(t *testing.T, host *hosttest.Host, c *connectplugin.Client) (*connect.Response[connectpluginv1.RequestCapabilityResponse], error) {
	t.Helper()
	return connectpluginv1connect.NewCapabilityBrokerClient(c.HTTPClient(), host.URL).
		RequestCapability(t.Context(), connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{CapabilityType: echo.Type}))
}

// watchOnce opens a watch that stays open, and returns its end where it has none before its
// first event.
func watchOnce(t *testing.T, host *hosttest.Host, c *connectplugin.Client, serviceType string) error {
	t.Helper()
	w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: serviceType})
	select {
	case <-w.Events:
		return nil
	case err := <-w.End:
		return err
	case <-time.After(hosttest.Wait):
		return errors.New("nothing came")
	}
}

const flapped = 6

// flap lets the host itself change a type for a watcher, several times.
func flap(t *testing.T, r *rig) {
	t.Helper()
	for range flapped {
		hosttest.UseUp(t, r.Host, "type-0")
	}
}

// reachEvents opens a watch of a type that changes: so many events come, and then no more.
func reachEvents(burst int) func(t *testing.T, r *rig) {
	return func(t *testing.T, r *rig) {
		t.Helper()
		c := r.Enrol(t, "registrar", hosttest.Requiring(manyTypes()...))
		w := hosttest.Watch(t, c, r.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "type-0"})
		w.Next(t)
		flap(t, r)
		for range burst - 1 {
			w.Next(t)
		}
		w.Quiet(t, "the watch has had its events")
	}
}

// reachBuffer resumes a watch after more events than are kept.
func reachBuffer(t *testing.T, r *rig) {
	t.Helper()
	c := r.Enrol(t, "registrar", hosttest.Requiring(manyTypes()...))
	open := func(req *connectpluginv1.WatchServiceRequest) *hosttest.Watching {
		req.ServiceType = "type-0"
		return hosttest.Watch(t, c, r.URL, req)
	}
	flap(t, r)
	first := open(&connectpluginv1.WatchServiceRequest{}).Next(t)
	flap(t, r)
	e := open(&connectpluginv1.WatchServiceRequest{ResumeAfter: first.GetSequence(), Epoch: first.GetEpoch()}).Next(t)
	if !e.GetResync() || e.GetMissed() == 0 {
		t.Errorf("%v, want a resync", e)
	}
}

const announcedOnce = 3000

// reachAnnounced lets two watchers wait for metadata of which one may have its share.
func reachAnnounced(t *testing.T, r *rig) {
	t.Helper()
	c := r.Enrol(t, "registrar", hosttest.Declaring([]string{"type-0"}, []string{"type-0"}))
	var watches []*hosttest.Watching
	for range 2 {
		w := hosttest.Watch(t, c, r.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "type-0"})
		w.Next(t)
		watches = append(watches, w)
	}
	err := hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: "type-0", Version: "1.0.0", EndpointPath: "/a/", Metadata: map[string]string{"k": strings.Repeat("x", announcedOnce-1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	told := func() int { return len(watches[0].Events) + len(watches[1].Events) }
	hosttest.Eventually(t, "one is told", func() bool { return told() > 0 })
	if n := told(); n != 1 {
		t.Errorf("%d are told at once", n)
	}
}

// reachLookups states a name that takes its time, and another one meanwhile.
func reachLookups(t *testing.T, r *rig) {
	t.Helper()
	c := r.Enrol(t, "registrar", hosttest.Providing(manyTypes()...))
	name := fmt.Sprintf("slow-%p.edge.test", r)
	release := dns.hold(name)
	done := make(chan error, 1)
	go func() { done <- registerAt(t, c, "type-0", name) }()
	hosttest.Eventually(t, "the name is looked up", func() bool { return dns.times(name) > 0 })
	if err := registerAt(t, c, "type-1", "another-"+name); connect.CodeOf(err) != connect.CodeResourceExhausted ||
		!strings.Contains(err.Error(), "too many look-ups of names") || retryHint(err) <= 0 {
		t.Errorf("another name: %v, want resource_exhausted, for too many look-ups", err)
	}
	release()
	hosttest.Arrival(t, done)
}

// reachLookupTTL states a name again when it is not known any more.
func reachLookupTTL(t *testing.T, r *rig) {
	t.Helper()
	c := r.Enrol(t, "registrar", hosttest.Providing(manyTypes()...))
	name := fmt.Sprintf("missing-%p.edge.test", r)
	_ = registerAt(t, c, "type-0", name)
	once := dns.times(name)
	_ = registerAt(t, c, "type-1", name)
	if n := dns.times(name); once == 0 || n != 2*once {
		t.Errorf("looked up %d times and then %d", once, n)
	}
}

// frames is a connection on which frames are read.
func frames(t *testing.T, r *rig) *http2.Framer {
	t.Helper()
	f, _ := framesOf(t, r)
	return f
}

func framesOf(t *testing.T, r *rig) (*http2.Framer, net.Conn) {
	t.Helper()
	conn := dialTLS(t, r)
	if conn == nil {
		t.Fatal("no connection")
	}
	f := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(hosttest.Wait))
	return f, conn
}

// blocking is an interceptor in which calls wait for their end.
func blocking(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Spec().Procedure == connectpluginv1connect.HealthServiceCheckProcedure {
			<-ctx.Done()
			return nil, connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
		}
		return next(ctx, req)
	}
}

// flood serves more than any connection holds, until its caller is gone.
type flood struct{ begun, gone chan struct{} }

// ServeHTTP implements http.Handler.
func (f flood) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	close(f.begun)
	defer close(f.gone)
	chunk := make([]byte, 64<<10)
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}
