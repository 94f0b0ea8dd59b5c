package recovery_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// ending opens a stream and returns where its end arrives, once something was heard on it.
func ending[T any](t *testing.T, stream *connect.ServerStreamForClient[T], err error) <-chan error {
	t.Helper()
	if err != nil || !stream.Receive() {
		t.Fatalf("stream: %v, %v", err, stream.Err())
	}
	ended := make(chan error, 1)
	go func() {
		for stream.Receive() { // to the end
		}
		err := stream.Err()
		_ = stream.Close()
		ended <- err
	}()
	return ended
}

// Whoever has a stream open shows life, whatever it reported before and however long nothing
// passes on the stream; whoever has none is silent.
func TestAudit_USE25_AnOpenStreamIsASignOfLife(t *testing.T) {
	t.Parallel()
	host := start(t, instances(20, connectplugin.HealthProbeConfig{Interval: 100 * time.Millisecond, Lease: 2 * time.Second}))
	provider := provide(t, host).Client.RuntimeID()
	// reported returns the client of an identity that reported, has no connection of its own, and
	// asks for nothing by itself.
	reported := func() identified {
		c := caller(t, host)
		header := hosttest.IdentityHeader(c.RuntimeID(), c.RuntimeToken())
		if err := c.ReportHealth(t.Context(), healthy, "", nil); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		return identified{host.Stranger(t), header}
	}
	open := map[string]<-chan error{}
	for protocol, opt := range protocols() {
		client := reported()
		watch, err := connectpluginv1connect.NewServiceRegistryClient(client, host.URL, opt).
			WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: echoType}))
		open["a watch, "+protocol] = ending(t, watch, err)
		client = reported()
		routed, err := connect.NewClient[text, text](client, host.URL+"/services/"+echoType+"/"+provider+sayOn, opt).
			CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		open["a routed stream, "+protocol] = ending(t, routed, err)
	}
	last := reported()
	id := last.header.Get("X-Plugin-Runtime-Id")
	hosttest.Eventually(t, "who came last and is silent ends", func() bool {
		for _, e := range host.Audit.Events() {
			if e.Kind == connectplugin.AuditEnded && e.RuntimeID == id && e.Reason == "silent" {
				return true
			}
		}
		return false
	})
	time.Sleep(hosttest.Moment) // until the others would have ended in the same round
	for what, ended := range open {
		select {
		case err := <-ended:
			t.Errorf("%s ended: %v", what, err)
		default:
		}
	}
}

// onlyGRPC refuses what is no gRPC, as servers of gRPC alone do.
func onlyGRPC(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") == "application/proto" {
			w.WriteHeader(http.StatusUnsupportedMediaType)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Who answers for another runtime id than it was asked for is another instance: the provider is
// not there, until it answers for itself again. A server that does not know the question is.
func TestAudit_USE26_AnotherInstanceIsNoAnswer(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"Connect": func(h http.Handler) http.Handler { return h }, "gRPC alone": onlyGRPC,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, instances(3, connectplugin.HealthProbeConfig{Interval: 50 * time.Millisecond, FailureThreshold: 2, Timeout: hosttest.Wait}))
			var elsewhere, unasked atomic.Bool
			c := host.Enrol(t, "provider", hosttest.Providing(echoType))
			_, asked := connectpluginv1connect.NewPluginControlHandler(control{id: func() string {
				if elsewhere.Load() {
					return "another-instance"
				}
				return c.RuntimeID()
			}})
			tls, err := host.Authority.PluginTLS("provider")
			if err != nil {
				t.Fatal(err)
			}
			at := hosttest.ServeTLS(t, tls, wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if unasked.Load() {
					http.NotFound(w, r)
					return
				}
				asked.ServeHTTP(w, r)
			})))
			err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
				ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": at},
			})
			if err != nil {
				t.Fatal(err)
			}
			w := hosttest.Watch(t, caller(t, host), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echoType})
			for range 2 {
				w.Until(t, hosttest.IsState(available))
				elsewhere.Store(true)
				w.Until(t, hosttest.IsState(unavailable))
				elsewhere.Store(false)
			}
			w.Until(t, hosttest.IsState(available))
			unasked.Store(true)
			w.Quiet(t, "who does not know the question is there")
		})
	}
}
