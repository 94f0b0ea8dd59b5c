package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// stalled is a connection on which nothing arrives until it is released.
type stalled struct {
	net.Conn

	release <-chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (c *stalled) Read(p []byte) (int, error) {
	select {
	case <-c.release:
		return c.Conn.Read(p)
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *stalled) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A provider that is slow to agree on TLS makes calls fail in time, the first after the timeout
// and later ones at once, and is not dialled again and again: what both had begun serves the
// calls that come when it is done.
func TestDial_WhatIsBegunIsFinishedForLaterCalls(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	release := make(chan struct{})
	var g *rig
	g = newRig(t, rigConfig{
		handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") },
		config: func(c *proxy.Config) {
			c.DialTimeout = timeout
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := g.dial(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &stalled{Conn: conn, release: release, closed: make(chan struct{})}, nil
			}
		},
	})
	for range 2 {
		if resp := get(t, g); resp != http.StatusBadGateway {
			t.Fatalf("status %d of a call to a provider that does not answer", resp)
		}
		if result := <-g.results; result.Class != proxy.ClassUnavailable || !result.Retryable {
			t.Errorf("%v, %v", result.Class, result.Err)
		}
	}
	<-time.After(timeout / 4) // a dial that ends with the calls has ended
	close(release)
	for deadline := time.Now().Add(patience); !g.provider.Connected(); {
		if time.Now().After(deadline) {
			t.Fatal("the dial was given up")
		}
		time.Sleep(time.Millisecond)
	}
	if resp := get(t, g); resp != http.StatusOK {
		t.Errorf("status %d when it is done", resp)
	}
	if n := g.conns.Load(); n != 1 {
		t.Errorf("%d connections instead of one", n)
	}
}

func get(t *testing.T, g *rig) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.host.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A call waits for a provider that does not answer until half of the time that it has left is
// over, which says nothing of the provider; what states no time, and the host's own questions,
// wait for as long as a dial may take.
func TestAudit_USE22_ACallLeavesTimeForAnotherProvider(t *testing.T) {
	t.Parallel()
	const dialTimeout = 5 * time.Second
	for name, tt := range map[string]struct {
		field, timeout string
		spent          time.Duration // of the time that it states
		how            proxy.Call
		want           time.Duration
		fault          bool
	}{
		"Connect":           {field: "Connect-Timeout-Ms", timeout: "1000", want: 500 * time.Millisecond},
		"gRPC":              {field: "Grpc-Timeout", timeout: "2S", want: time.Second},
		"a second provider": {field: "Connect-Timeout-Ms", timeout: "1000", spent: 600 * time.Millisecond, want: 200 * time.Millisecond},
		"no time to tell":   {field: "Connect-Timeout-Ms", timeout: "1000", spent: 995 * time.Millisecond, want: dialTimeout, fault: true},
		"seconds of it":     {field: "Grpc-Timeout", timeout: "5S", want: 2500 * time.Millisecond},
		"longer than that":  {field: "Grpc-Timeout", timeout: "1H", want: dialTimeout, fault: true},
		"no time":           {field: "X-Other", timeout: "1", want: dialTimeout, fault: true},
		"no number":         {field: "Connect-Timeout-Ms", timeout: "soon", want: dialTimeout, fault: true},
		"urgent":            {field: "Connect-Timeout-Ms", timeout: "10", how: proxy.Call{Urgent: true}, want: dialTimeout, fault: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t, proxy.Config{
					Endpoint: endpointOf(t, "http://127.0.0.1:1"), DialTimeout: dialTimeout,
					Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
				})
				begun := time.Now()
				if tt.spent > 0 {
					tt.how.Began = begun.Add(-tt.spent)
				}
				tt.how.Path = "/a"
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
				r.Header.Set("Content-Type", "application/proto")
				r.Header.Set(tt.field, tt.timeout)
				got := p.Forward(httptest.NewRecorder(), r, tt.how)
				if got.Class != proxy.ClassUnavailable || !got.Retryable || got.Sent || got.Fault != tt.fault {
					t.Errorf("%+v", got)
				}
				if took := time.Since(begun); took != tt.want {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
			})
		})
	}
}
