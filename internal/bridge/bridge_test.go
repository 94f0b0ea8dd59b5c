package bridge_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/bridge"
)

// client speaks HTTP/2 alone.
func client(t *testing.T, dialled *[]net.Conn) *http.Client {
	t.Helper()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := bridge.Dial(ctx, network, address)
		if err == nil {
			*dialled = append(*dialled, conn)
		}
		return conn, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func serve(t *testing.T, unencrypted2 bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proto", r.Proto)
		w.Header().Set("Got-Host", r.Host)
		_, _ = io.Copy(w, r.Body)
	}))
	if unencrypted2 {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestDial(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		h2c  bool
		want string
	}{"a server of HTTP/1.1": {false, "HTTP/1.1"}, "a server of HTTP/2": {true, "HTTP/2.0"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, tt.h2c)
			var dialled []net.Conn
			c := client(t, &dialled)
			for range 3 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "plugin.example"
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(body) != "hello" || resp.ProtoMajor != 2 {
					t.Errorf("got %q over %s, %v", body, resp.Proto, err)
				}
				if got := resp.Header.Get("Proto"); got != tt.want || resp.Header.Get("Got-Host") != "plugin.example" {
					t.Errorf("the server saw %s for %s, want %s", got, resp.Header.Get("Got-Host"), tt.want)
				}
			}
			if len(dialled) != 1 {
				t.Errorf("%d connections", len(dialled))
			}
		})
	}
}

func TestDial_NobodyThere(t *testing.T) {
	t.Parallel()
	server := serve(t, false)
	server.Close()
	if conn, err := bridge.Dial(t.Context(), "tcp", server.Listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("connected to nobody")
	}
}

// The request ends where its server does, and does not hang.
func TestDial_ServerGoesAway(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			close(begun)
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	var dialled []net.Conn
	c := client(t, &dialled)
	go func() {
		<-begun
		server.CloseClientConnections()
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", resp.Status)
	}
}
