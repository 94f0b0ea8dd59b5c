package hosttest

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// RecordingServer counts the requests that it gets.
type RecordingServer struct{ Requests atomic.Int64 }

func (s *RecordingServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.Requests.Add(1)
	w.WriteHeader(http.StatusTeapot)
}

// StartTLS serves handler over TLS and HTTP/2 until the test ends.
func StartTLS(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// ServeTLS serves handler over TLS and HTTP/2 until the test ends, and returns
// its base URL.
func ServeTLS(t testing.TB, cfg *tls.Config, handler http.Handler) string {
	t.Helper()
	l := Listen(t)
	ServeOn(t, l, cfg, handler)
	return "https://" + l.Addr().String()
}

// ServeTLSUntil serves as ServeTLS does, and returns also what ends it at once.
func ServeTLSUntil(t testing.TB, cfg *tls.Config, handler http.Handler) (at string, stop func()) {
	t.Helper()
	l := Listen(t)
	stop = ServeOn(t, l, cfg, handler)
	return "https://" + l.Addr().String(), stop
}

// ServeOn serves handler over HTTP/2 on a listener until stop is called or the test ends; a
// nil configuration of TLS is plaintext.
func ServeOn(t testing.TB, l net.Listener, cfg *tls.Config, handler http.Handler) (stop func()) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(cfg == nil)
	server := &http.Server{
		Handler: handler, TLSConfig: cfg.Clone(), Protocols: &protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if cfg == nil {
			_ = server.Serve(l)
			return
		}
		_ = server.ServeTLS(l, "", "")
	}()
	stop = func() {
		_ = server.Close()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// HostTLS is a configuration that passes for the host: a certificate of its
// authority, for its name.
func HostTLS(t testing.TB, host *Host) *tls.Config {
	t.Helper()
	cfg, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// ErrDown is what is wrong with a server that is down.
var ErrDown = errors.New("down")

// CutClient loses the connection after the request went out.
type CutClient struct{ Sent atomic.Int64 }

// Do counts the request and loses its connection.
func (c *CutClient) Do(*http.Request) (*http.Response, error) {
	c.Sent.Add(1)
	return nil, &net.OpError{Op: "read", Net: "tcp", Err: ErrDown}
}
