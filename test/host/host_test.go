package host_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// callSlowly starts a routed call that the provider does not answer yet.
func callSlowly(t *testing.T, host *hosttest.Host, slow *hosttest.SlowLogger) <-chan error {
	t.Helper()
	path, handler := loggerv1connect.NewLoggerHandler(slow)
	host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: path, Handler: handler}}
		c.GracefulShutdownTimeout = 100 * time.Millisecond
	})
	conn, err := host.Enrol(t, "api", hosttest.Requiring("logger")).Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan error, 1)
	go func() {
		_, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(context.Background(), connect.NewRequest(&loggerv1.LogRequest{}))
		called <- err
	}()
	<-slow.Arrived
	return called
}

func TestHost_ShutdownEndsWatchesAndLetsCallsFinish(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	slow := hosttest.NewSlowLogger()
	called := callSlowly(t, host, slow)
	watcher := host.Enrol(t, "api", hosttest.Requiring("logger"))
	stream, err := watcher.RegistryClient().WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}))
	if err != nil || !stream.Receive() {
		t.Fatalf("watch: %v %v", err, stream.Err())
	}
	done := make(chan error, 1)
	go func() { done <- host.Shutdown(context.Background()) }()
	for stream.Receive() {
	}
	if code := connect.CodeOf(stream.Err()); code != connect.CodeUnavailable {
		t.Errorf("the watch ended with %v, want unavailable", stream.Err())
	}
	select {
	case err := <-called:
		t.Fatalf("the call in flight ended with the watch: %v", err)
	default:
	}
	close(slow.Release)
	if err := <-called; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestHost_ShutdownIsBounded(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.GracefulShutdownTimeout = hosttest.LoggerPolicy(), 300*time.Millisecond
	})
	called := callSlowly(t, host, hosttest.NewSlowLogger())
	began := time.Now()
	if err := host.Shutdown(context.Background()); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Shutdown: %v, want an error that says that calls were cut off", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Shutdown took %v", took)
	}
	if err := <-called; connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("the call that was cut off: %v, want unavailable, because the host is shutting down", err)
	}
}

// A connection that is set up while the host shuts down does not hold it up.
func TestHost_LateConnectionDoesNotHoldUpShutdown(t *testing.T) {
	t.Parallel()
	const grace = 30 * time.Second
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.GracefulShutdownTimeout = hosttest.LoggerPolicy(), grace
	})
	raw, err := net.Dial("tcp", host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	slow := hosttest.NewSlowLogger()
	called := callSlowly(t, host, slow)
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- host.Shutdown(context.Background()) }()
	hosttest.Eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", host.Addr())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	cfg := host.StrangerTLS()
	cfg.ServerName, cfg.NextProtos = "127.0.0.1", []string{"h2"}
	late := tls.Client(raw, cfg)
	_ = late.SetDeadline(time.Now().Add(grace))
	if _, err := late.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		t.Fatalf("the late handshake: %v", err)
	}
	close(slow.Release)
	if err := <-called; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-done; err != nil || time.Since(began) > grace/2 {
		t.Errorf("Shutdown took %v: %v", time.Since(began), err)
	}
}

func TestHost_EndsOnceAndForGood(t *testing.T) {
	t.Parallel()
	var cleaned atomic.Int64
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: hosttest.NewAuthority(t), Policy: hosttest.LoggerPolicy(), Logger: hosttest.Logger(t),
		Cleanup: func(context.Context) error { cleaned.Add(1); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := host.Shutdown(context.Background()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
	all.Wait()
	if cleaned.Load() != 1 {
		t.Errorf("Cleanup ran %d times", cleaned.Load())
	}
	if err := host.Serve(t.Context(), hosttest.Listen(t)); !errors.Is(err, connectplugin.ErrHostClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestServe_EndsWithStopCh(t *testing.T) {
	t.Parallel()
	l := hosttest.Listen(t)
	addr := l.Addr().String()
	cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Policy: hosttest.LoggerPolicy(), Addr: addr, Logger: hosttest.Logger(t)}
	if err := connectplugin.Serve(cfg); err == nil || !strings.Contains(err.Error(), "taken") || !strings.Contains(err.Error(), "Addr") {
		t.Errorf("Serve on a taken port: %v, want an error that says so and names Addr", err)
	}
	_ = l.Close()
	stop := make(chan struct{})
	cfg.StopCh = stop
	served := make(chan error, 1)
	go func() { served <- connectplugin.Serve(cfg) }()
	client := hosttest.HTTPClient(t, cfg.Authority.ClientTLS())
	hosttest.Eventually(t, "the host answers", func() bool {
		resp, err := client.Get("https://" + addr + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err == nil && resp.StatusCode == http.StatusOK
	})
	close(stop)
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// A host with plugins, calls and watches leaves no goroutine and no descriptor
// behind. It runs alone.
func TestHost_LeavesNothingBehind(t *testing.T) {
	round := func(t *testing.T) {
		t.Helper()
		host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
		host.StartPlugin(t, "logger", func(c *connectplugin.PluginServerConfig) {
			c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
		})
		for range 3 {
			conn, err := host.Enrol(t, "api", hosttest.Requiring("logger")).Service(t.Context(), "logger", "")
			if err != nil {
				t.Fatal(err)
			}
			client := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL())
			if _, err := client.Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{})); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("warm up", round)
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	t.Run("measured", round)
	hosttest.Eventually(t, "goroutines and descriptors are back", func() bool {
		return runtime.NumGoroutine() <= goroutines && openDescriptors(t) <= descriptors
	})
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	return len(entries)
}

func TestServeConfig_ErrorsNameTheField(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.ServeConfig){
		"Addr":                          func(c *connectplugin.ServeConfig) { c.Addr = "no port" },
		"MinProtocolVersion":            func(c *connectplugin.ServeConfig) { c.ProtocolVersion, c.MinProtocolVersion = 1, 2 },
		"DeprecatedBelow":               func(c *connectplugin.ServeConfig) { c.DeprecatedBelow = 9 },
		"GracefulShutdownTimeout":       func(c *connectplugin.ServeConfig) { c.GracefulShutdownTimeout = -1 },
		"RuntimeTokenTTL":               func(c *connectplugin.ServeConfig) { c.RuntimeTokenTTL = -1 },
		"CapabilityGrantTTL":            func(c *connectplugin.ServeConfig) { c.CapabilityGrantTTL = -1 },
		"Limits.MaxWatches":             func(c *connectplugin.ServeConfig) { c.Limits.MaxWatches = -1 },
		"HandshakeAuth.MaxClockSkew":    func(c *connectplugin.ServeConfig) { c.HandshakeAuth.MaxClockSkew = -1 },
		"HandshakeAuth.ReplayCacheSize": func(c *connectplugin.ServeConfig) { c.HandshakeAuth.ReplayCacheSize = -1 },
		`Impls["x"]`:                    func(c *connectplugin.ServeConfig) { c.Impls = map[string]any{"x": 1} },
		`Impls["logger"]`: func(c *connectplugin.ServeConfig) {
			c.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
		},
		"AuthProviders[0]": func(c *connectplugin.ServeConfig) { c.AuthProviders = []connectplugin.AuthProvider{nil} },
		`Policy.Plugins["x"].Secret`: func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {Secret: []byte("short")}}}
		},
		`Policy.Plugins["x"].Provides[0]`: func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {Provides: []string{"a/b"}}}}
		},
		`Policy.Plugins["x"].Endpoint`: func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"x": {Endpoint: "ftp://x"}}}
		},
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t)}
			edit(cfg)
			_, err := connectplugin.NewHost(cfg)
			if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field) {
				t.Errorf("%v, want an error that names %s", err, field)
			}
		})
	}
}

func TestSecret_PrintsNothing(t *testing.T) {
	t.Parallel()
	cfg := connectplugin.ClientConfig{SelfID: "x", Secret: connectplugin.Secret("0123456789abcdef")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if got := fmt.Sprintf(verb, cfg) + fmt.Sprintf(verb, cfg.Secret); strings.Contains(got, "0123456789abcdef") || strings.Contains(got, "30313233") || strings.Contains(got, "48 49 50") {
			t.Errorf("%s prints the secret: %s", verb, got)
		}
	}
	if !cfg.Secret.Equal(connectplugin.Secret("0123456789abcdef")) || cfg.Secret.Equal(nil) || connectplugin.Secret(nil).Equal(nil) {
		t.Error("Equal is wrong")
	}
}
