package host_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host serves on two listeners, and the end of either context ends both.
func TestServe_TwiceEndsTogether(t *testing.T) {
	t.Parallel()
	for name, ended := range map[string]int{"the first": 0, "the second": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority := hosttest.NewAuthority(t)
			host, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority})
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 2)
			var ends [2]context.CancelFunc
			for i := range ends {
				ctx, end := context.WithCancel(t.Context())
				t.Cleanup(end)
				ends[i] = end
				l := hosttest.Listen(t)
				go func() { served <- host.Serve(ctx, l) }()
				answers(t, authority, l)
			}
			ends[ended]()
			for range ends {
				select {
				case err := <-served:
					if err != nil {
						t.Error(err)
					}
				case <-time.After(time.Minute):
					t.Fatal("it serves on")
				}
			}
		})
	}
}

// answers asks a host on a listener how it is.
func answers(t *testing.T, authority *connectplugin.Authority, l net.Listener) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: authority.ClientTLS(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+l.Addr().String()+"/healthz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("it answers %s", resp.Status)
	}
}
