package proxy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
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
