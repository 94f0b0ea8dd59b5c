package connectplugin_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Plugins register, watch, ask for grants and enrol without a pause while policy
// is replaced. Whatever the order was in which things met, nothing that the last
// policy does not allow is left once the last request was answered.
func TestAudit_REG1_PolicyRacesWithEverything(t *testing.T) {
	t.Parallel()
	allow := unproven("p", "q")
	allow.AllowMultiple = nil
	narrow := unproven("p", "q")
	narrow.AllowMultiple = nil
	for selfID := range narrow.Plugins {
		narrow.Plugins[selfID] = connectplugin.PluginPolicy{AllowUnproven: true, AllowOwnAddress: false}
	}
	several := unproven("p", "q")
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = allow
		c.Limits.ChangesPerSecond, c.Limits.ChangeBurst = 1e6, 1e6
		c.Limits.MaxIdentitiesPerSelfID, c.Limits.MaxIdentitiesPerPeer = 1e6, 1e6
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(newLoggerCapability(&recordingLogger{}))
	})
	ends := map[string]struct {
		first, then *connectplugin.Policy
	}{
		"rights":     {allow, narrow},
		"identities": {allow, &connectplugin.Policy{}},
		"owners":     {several, allow},
	}
	for round := range 8 {
		for _, end := range []string{"rights", "identities", "owners"} {
			setPolicy(t, host, ends[end].first)
			r := startRace(t, host)
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			setPolicy(t, host, ends[end].then)
			r.stop()
			r.check(t, fmt.Sprintf("round %d, %s", round, end), end)
		}
	}
}

// policyRace is plugins that do everything without a pause.
type policyRace struct {
	host    *hosttest.Host
	cancel  context.CancelFunc
	workers sync.WaitGroup
	halt    atomic.Bool

	mu      sync.Mutex
	ids     [][2]string // runtime id and token
	watches []*watching
	done    map[string]int
}

func startRace(t *testing.T, host *hosttest.Host) *policyRace {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &policyRace{host: host, cancel: cancel, done: map[string]int{}}
	t.Cleanup(cancel)
	for _, selfID := range []string{"p", "q"} {
		for _, act := range []func(context.Context, *http.Client, [2]string){r.register, r.watch, r.grant} {
			h := host.Stranger(t)
			client := connectpluginv1connect.NewHandshakeServiceClient(h, host.URL)
			r.workers.Go(func() {
				for !r.halt.Load() {
					id, ok := r.enrol(ctx, client, selfID)
					for range 5 {
						if ok && !r.halt.Load() {
							act(ctx, h, id)
						}
					}
				}
			})
		}
	}
	return r
}

// stop lets every request that was begun be answered.
func (r *policyRace) stop() {
	r.halt.Store(true)
	r.workers.Wait()
}

func (r *policyRace) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[what]++
}

func (r *policyRace) enrol(ctx context.Context, client connectpluginv1connect.HandshakeServiceClient, selfID string) ([2]string, bool) {
	resp, err := client.Handshake(ctx, connect.NewRequest(oldRequest(selfID)))
	if err != nil {
		return [2]string{}, false
	}
	id := [2]string{resp.Msg.GetRuntimeId(), resp.Msg.GetRuntimeToken()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
	return id, true
}

func (r *policyRace) register(ctx context.Context, h *http.Client, id [2]string) {
	_, err := connectpluginv1connect.NewServiceRegistryClient(h, r.host.URL).RegisterService(ctx,
		credentials(&connectpluginv1.RegisterServiceRequest{ServiceType: "raced", Version: "1.0.0", Metadata: map[string]string{"base_url": "https://127.0.0.1:1"}}, id[0], id[1]))
	if err == nil {
		r.count("registered")
	}
}

func (r *policyRace) watch(ctx context.Context, h *http.Client, id [2]string) {
	stream, err := connectpluginv1connect.NewServiceRegistryClient(h, r.host.URL).WatchService(ctx,
		credentials(&connectpluginv1.WatchServiceRequest{ServiceType: "raced"}, id[0], id[1]))
	if err != nil || !stream.Receive() {
		return
	}
	w := &watching{end: make(chan error, 1)}
	go func() {
		for stream.Receive() {
		}
		w.end <- stream.Err()
	}()
	r.count("watched")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
}

func (r *policyRace) grant(ctx context.Context, h *http.Client, id [2]string) {
	_, err := connectpluginv1connect.NewCapabilityBrokerClient(h, r.host.URL).RequestCapability(ctx,
		credentials(&connectpluginv1.RequestCapabilityRequest{CapabilityType: "logger"}, id[0], id[1]))
	if err == nil {
		r.count("granted")
	}
}

// check looks for what must not be left.
func (r *policyRace) check(t *testing.T, name, end string) {
	t.Helper()
	providers := r.host.Registry().GetAllProviders("raced")
	if end == "owners" {
		owner := ""
		for _, p := range providers {
			selfID, _, _ := cutLast(p.RuntimeID)
			if owner != "" && selfID != owner {
				t.Fatalf("%s: %s and %s both provide the type", name, owner, selfID)
			}
			owner = selfID
		}
		return
	}
	if len(providers) > 0 {
		t.Fatalf("%s: %d registrations are left, of %v", name, len(providers), r.done)
	}
	for _, w := range r.watches {
		if code := w.code(patience); code == 0 {
			t.Fatalf("%s: a watch is still open, of %v", name, r.done)
		}
	}
	for _, id := range r.ids {
		if n := connectplugin.LiveGrants(r.host.Host, id[0]); n > 0 {
			t.Fatalf("%s: %d grants are left, of %v", name, n, r.done)
		}
		if at := connectplugin.DialledAt(r.host.Host, id[0]); end == "rights" && at != "" {
			t.Fatalf("%s: a plugin is still dialled at %s", name, at)
		}
		if code := reportAs(t, r.host, id[0], id[1]); end == "identities" && code != connect.CodeUnauthenticated {
			t.Fatalf("%s: an identity lives: %v", name, code)
		}
	}
}

// cutLast cuts a runtime id into self id and random part.
func cutLast(runtimeID string) (before, after string, ok bool) {
	for i := len(runtimeID) - 1; i >= 0; i-- {
		if runtimeID[i] == '-' {
			return runtimeID[:i], runtimeID[i+1:], true
		}
	}
	return runtimeID, "", false
}
