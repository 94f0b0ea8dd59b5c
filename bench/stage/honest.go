package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Who takes part in an attack, and what they provide.
const (
	Provider = "provider" // honest
	Probe    = "probe"    // honest, calls the provider
	Bad      = "bad"      // a plugin that turned on the others
	Hostile  = "hostile"  // a provider that turned on the host and its callers

	Echo = "echo" // the type that the provider provides
	Tool = "tool" // a capability of the host

	Path = "/bench.v1.Echo/"
	Say  = Path + "Say"  // says what it was told
	Slow = Path + "Slow" // says nothing until nobody listens
	Sink = Path + "Sink" // does not read
	Pour = Path + "Pour" // never ends

	callLimit = 10 * time.Second
	awaiting  = 5 * time.Millisecond
	poured    = 32 << 10
	version   = "1.0.0"

	// What the host of an attack grants one identity, connection or address: little enough for
	// one to reach it, at once too, for all others wait while a burst is worked off.
	requests, requestBurst       = 500, 50
	refusals, refusalBurst       = 50, 100
	connections, connectionBurst = 10, 10
	changes, changeBurst         = 150, 100
	byteRate, byteBurst          = 1 << 20, 1 << 20
	openCalls, unread            = 128, 8 << 20
)

var errCall = errors.New("call failed")

// HostConfig is the host of an attack: what a user writes, and budgets that fit a
// small machine.
func HostConfig(a *connectplugin.Authority) *connectplugin.ServeConfig {
	all := []string{"*"}
	broker := connectplugin.NewCapabilityBroker("")
	broker.RegisterCapability(tool{})
	return &connectplugin.ServeConfig{
		Authority: a, CapabilityBroker: broker,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			Provider: {Provides: []string{Echo}, AllowOwnAddress: true},
			Probe:    {Requires: []string{Echo}},
			Bad:      {Provides: all, Requires: all, Capabilities: all, AllowOwnAddress: true},
			Hostile:  {Provides: []string{Hostile}, AllowOwnAddress: true},
		}},
		Limits: connectplugin.Limits{
			RequestsPerSecond: requests, RequestBurst: requestBurst, RefusalsPerSecond: refusals, RefusalBurst: refusalBurst,
			ConnectionsPerSecond: connections, ConnectionBurst: connectionBurst,
			ChangesPerSecond: changes, ChangeBurst: changeBurst, BytesPerSecond: byteRate, BytesBurst: byteBurst,
			MaxOpenCallsPerIdentity: openCalls, MaxUnreadBytesPerIdentity: unread,
		},
		Audit: func(connectplugin.AuditEvent) {},
	}
}

type tool struct{}

func (tool) CapabilityType() string                           { return Tool }
func (tool) Version() string                                  { return version }
func (tool) ServeHTTP(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }

// ServeProvider is the honest provider, until its input ends.
func ServeProvider(ctx context.Context, a *connectplugin.Authority, addr string) error {
	certificate, err := a.PluginTLS(Provider)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	served := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		served <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:      connectplugin.ClientConfig{HostURL: "https://" + addr, SelfID: Provider, TLS: certificate},
			Services:    []connectplugin.PluginService{{Type: Echo, Version: version, Path: Path, Handler: http.HandlerFunc(provide)}},
			OnConnected: func(context.Context, *connectplugin.Client) error { close(ready); return nil },
		})
	}()
	select {
	case <-ready:
	case err := <-served:
		return fmt.Errorf("provider: %w", err)
	}
	if err := Tell("ready"); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	end()
	return <-served
}

func provide(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case Say:
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body)
	case Pour:
		w.Header().Set("Content-Type", "application/octet-stream")
		for some := make([]byte, poured); ; {
			if _, err := w.Write(some); err != nil {
				return
			}
		}
	default:
		<-r.Context().Done()
	}
}

// Caller is an honest client of the provider.
type Caller struct {
	client *connectplugin.Client
	conn   *connectplugin.ServiceConn
}

// Connect makes a caller of a type under a name.
func Connect(ctx context.Context, a *connectplugin.Authority, addr, name, serviceType string) (*Caller, error) {
	certificate, err := a.PluginTLS(name)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + addr, SelfID: name, TLS: certificate,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: serviceType}}},
	})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), c.Close())
	}
	conn, err := c.Service(ctx, serviceType, "")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("service: %w", err), c.Close())
	}
	return &Caller{client: c, conn: conn}, nil
}

// Close ends the caller, whose identity is given back.
func (c *Caller) Close(ctx context.Context) {
	_ = c.client.Leave(ctx)
}

// Call makes a call.
func (c *Caller) Call(ctx context.Context) error {
	const message = "honest"
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.conn.BaseURL()+Say, strings.NewReader(message))
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	r.Header.Set("Content-Type", "application/proto")
	resp, err := c.conn.HTTPClient().Do(r)
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(got) != message {
		return fmt.Errorf("%w: status %d, %d bytes, %w", errCall, resp.StatusCode, len(got), err)
	}
	return nil
}

// Answer is what came of a call.
type Answer struct {
	At   time.Time // of the call
	Took time.Duration
	Err  error
}

// Probe calls again and again, with a pause between, and returns what came of it.
func (c *Caller) Probe(ctx context.Context, pause time.Duration) (all []Answer) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		begun := time.Now()
		err := c.Call(context.WithoutCancel(ctx))
		all = append(all, Answer{At: begun, Took: time.Since(begun), Err: err})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return all
}

// Await calls until a call is answered.
func (c *Caller) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	tick := time.NewTicker(awaiting)
	defer tick.Stop()
	for {
		err := c.Call(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Glance opens a watch of the type and gives it up after what it says first.
func (c *Caller) Glance(ctx context.Context, serviceType string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	for _, err := range c.client.WatchService(ctx, serviceType) {
		return err
	}
	return ctx.Err()
}

// GiveUp begins a call that takes for ever, and gives it up.
func (c *Caller) GiveUp(ctx context.Context, after time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, after)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.conn.BaseURL()+Slow, http.NoBody)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	resp, err := c.conn.HTTPClient().Do(r)
	if err == nil {
		_ = resp.Body.Close()
		return fmt.Errorf("%w: status %d of what takes for ever", errCall, resp.StatusCode)
	}
	return nil
}
