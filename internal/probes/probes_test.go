package probes_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/probes"
)

// Whoever is being answered may finish, whoever only connected does not hold the end up.
func TestShutdown(t *testing.T) {
	t.Parallel()

	began, release := make(chan struct{}), make(chan struct{})
	s := probes.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		w.WriteHeader(http.StatusTeapot)
	}), slog.New(slog.DiscardHandler))

	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	idle, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()

	answered := make(chan int, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), http.NoBody)
		if err != nil {
			answered <- 0
			return
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			answered <- 0
			return
		}
		_ = resp.Body.Close()
		answered <- resp.StatusCode
	}()
	<-began

	ended := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		s.Shutdown(ctx)
		close(ended)
	}()

	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}

	close(release)

	if got := <-answered; got != http.StatusTeapot {
		t.Errorf("the request in flight: %d", got)
	}

	<-ended
}
