package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

var (
	errNoRoute     = errors.New("no route to host")
	errStreamReset = errors.New("stream error: stream ID 5; INTERNAL_ERROR; received from peer")
)

// ends passes for a host that gives identities, begins each watch, and ends it with a code.
type ends struct {
	odd
	code    string
	broken  bool // watches have no answer at all
	failing atomic.Bool
	watches atomic.Int64
}

// Do implements connect.HTTPClient.
func (h *ends) Do(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/Handshake") && h.failing.Load() {
		time.Sleep(time.Millisecond)
		return nil, errNoRoute
	}
	if !strings.HasSuffix(r.URL.Path, "/WatchService") {
		return h.odd.Do(r)
	}
	time.Sleep(time.Millisecond)
	h.watches.Add(1)
	if h.broken {
		return nil, errStreamReset
	}
	resp := &http.Response{StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Header: http.Header{}, Request: r}
	resp.Header.Set("Content-Type", "application/connect+proto")
	resp.Body = io.NopCloser(bytes.NewReader(envelope(2, []byte(`{"error":{"code":"`+h.code+`"}}`))))
	return resp, nil
}

func (h *ends) client(t *testing.T) *connectplugin.Client {
	t.Helper()
	c := h.unconnected(t)
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// unconnected is a client that nobody connected.
func (h *ends) unconnected(t *testing.T) *connectplugin.Client {
	t.Helper()
	h.asked = map[string]int64{}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://host.example", SelfID: "api", HTTPClient: h, Logger: hosttest.Logger(t),
		ProtocolVersion: 2, Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("store")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// However a host ends each watch, its client begins the next and enrols at its own pace.
func TestAudit_OWN24_WatchesThatEndAtOnceArePaced(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"unauthenticated", "unavailable", "resource_exhausted", "aborted"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &ends{code: code}
				watch(t, h.client(t))
				time.Sleep(10 * time.Second)
				if n := h.count("Handshake"); n > 60 {
					t.Errorf("%d handshakes in 10 s", n)
				}
				if n := h.watches.Load(); n < 2 || n > 60 {
					t.Errorf("%d watches in 10 s", n)
				}
			})
		})
	}
}

// After a handshake that failed, too.
func TestAudit_OWN24_WatchesWithoutAnswerArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &ends{broken: true}
		c := h.client(t)
		h.failing.Store(true)
		_ = c.Connect(t.Context()) // a renewal that fails once
		h.failing.Store(false)
		watch(t, c)
		time.Sleep(10 * time.Second)
		if n := h.watches.Load(); n < 2 || n > 60 {
			t.Errorf("%d watches in 10 s", n)
		}
	})
}

// Whoever waited in vain for the first state of a service is told what the host said meanwhile.
func TestClient_ServiceWithoutAnAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]connect.Code{
		"resource_exhausted": connect.CodeResourceExhausted, "aborted": connect.CodeAborted, "unavailable": connect.CodeUnavailable,
	} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := (&ends{code: code}).client(t)
				for name, with := range map[string]func(context.Context) (context.Context, context.CancelFunc){
					"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
						return context.WithTimeout(ctx, time.Minute)
					},
					"canceled": func(ctx context.Context) (context.Context, context.CancelFunc) {
						ctx, cancel := context.WithCancel(ctx)
						time.AfterFunc(5*time.Second, cancel) // sooner than it gives up by itself
						return ctx, cancel
					},
				} {
					ctx, cancel := with(t.Context())
					_, err := c.Service(ctx, "store", "")
					if connect.CodeOf(err) != want || !errors.Is(err, ctx.Err()) {
						t.Errorf("%s: %v", name, err)
					}
					cancel()
				}
			})
		})
	}
}

// Where the host is not there yet whoever asks is told that it is unavailable, and a watch waits for it.
func TestClient_HostThatIsNotThereYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &ends{code: "unavailable"}
		h.failing.Store(true)
		c := h.unconnected(t)
		_, service := c.Service(t.Context(), "store", "")
		_, provider := c.Provider(t.Context(), "store", "store-1")
		_, capability := c.Capability(t.Context(), "logger", "")
		for what, err := range map[string]error{
			"Connect": c.Connect(t.Context()), "Service": service, "Provider": provider, "Capability": capability,
			"ReportHealth": c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil),
		} {
			if connect.CodeOf(err) != connect.CodeUnavailable || !errors.Is(err, errNoRoute) {
				t.Errorf("%s: %v", what, err)
			}
		}
		watch(t, c)
		time.Sleep(time.Minute)
		if n := h.watches.Load(); n != 0 {
			t.Errorf("%d watches", n)
		}
		h.failing.Store(false)
		time.Sleep(time.Minute)
		if h.watches.Load() == 0 {
			t.Error("the watch has ended")
		}
	})
}

// Nor is a host unreachable without that code where nobody listens.
func TestClient_NobodyListens(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(*connectplugin.Client) error{
		"Connect": func(c *connectplugin.Client) error { return c.Connect(t.Context()) },
		"Service": func(c *connectplugin.Client) error {
			_, err := c.Service(t.Context(), "store", "")
			return err
		},
		"Capability": func(c *connectplugin.Client) error {
			_, err := c.Capability(t.Context(), "logger", "")
			return err
		},
	} {
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: "https://" + hosttest.FreeAddr(t), SelfID: "api", TLS: hosttest.NewAuthority(t).ClientTLS(), Logger: hosttest.Logger(t),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(c); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
