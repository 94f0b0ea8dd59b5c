package recovery_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// unasked has a host ask nobody in its turn, as long as a test lasts.
const unasked = 10_000 * time.Hour

// giveUp calls, and gives up after longer than a plugin may be silent.
func giveUp(t *testing.T, c reachable) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if once(ctx, c) == nil {
		t.Error("a call that nobody answers succeeds")
	}
}

// A plugin whose process hangs is found out by the calls that are given up, long before its turn to be asked comes.
func TestHang_CallsThatAreGivenUpHaveItAsked(t *testing.T) {
	t.Parallel()
	host := start(t, instances(2, connectplugin.HealthProbeConfig{
		Interval: unasked, Timeout: 100 * time.Millisecond, Lease: 2 * unasked,
	}))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	hang(t, host, wire.Dial(t, host.Host), cfg)
	api, err := host.Enrol(t, "api", hosttest.Requiring(echoType)).Service(t.Context(), echoType, "")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "it is unhealthy", func() bool {
		giveUp(t, api)
		for _, p := range host.Plugins() {
			if p.SelfID == "provider" && p.Health == connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY {
				return true
			}
		}
		return false
	})
}

// One that is only slow is asked as well, answers, and is called on.
func TestHang_WhoIsSlowStays(t *testing.T) {
	t.Parallel()
	host := start(t, instances(2, connectplugin.HealthProbeConfig{Interval: unasked, Timeout: hosttest.Wait, Lease: 2 * unasked}))
	cfg, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	c := host.Enrol(t, "provider", hosttest.Declaring([]string{echoType}, nil))
	var asked atomic.Int32
	var ill, quick atomic.Bool
	mux, answer := http.NewServeMux(), echoHandler()
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(asking{control{id: c.RuntimeID}, &asked, &ill}))
	mux.HandleFunc("/echo.v1.Echo/", func(w http.ResponseWriter, r *http.Request) {
		if !quick.Load() {
			<-r.Context().Done()
			return
		}
		answer.ServeHTTP(w, r)
	})
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": hosttest.ServeTLS(t, cfg, mux)},
	})
	if err != nil {
		t.Fatal(err)
	}
	api, err := host.Enrol(t, "api", hosttest.Requiring(echoType)).Service(t.Context(), echoType, "")
	if err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	hosttest.Eventually(t, "it is asked", func() bool {
		giveUp(t, api)
		return asked.Load() > before
	})
	quick.Store(true)
	if err := once(t.Context(), api); err != nil {
		t.Errorf("once it is quick: %v", err)
	}
}
