package drain_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/drain"
)

// start serves one request that lasts until release is closed.
func start(t *testing.T) (d *drain.Drain, server *http.Server, answered <-chan error, release chan struct{}) {
	t.Helper()
	d, release = drain.New(), make(chan struct{})
	began := make(chan struct{})
	server = &http.Server{Handler: d.Count(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		_, _ = w.Write([]byte("done"))
	}))}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	result := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+l.Addr().String(), http.NoBody)
		if err != nil {
			result <- err
			return
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			err = errors.Join(err, resp.Body.Close())
		}
		result <- err
	}()
	<-began
	return d, server, result, release
}

func TestDrain_WaitsForRequests(t *testing.T) {
	t.Parallel()
	d, server, answered, release := start(t)
	ended := make(chan error, 1)
	go func() { ended <- d.Shutdown(t.Context(), server) }()
	select {
	case err := <-ended:
		t.Fatalf("ended with a request in flight: %v", err)
	case err := <-answered:
		t.Fatalf("answered before it was released: %v", err)
	default:
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the request was cut off: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestDrain_GivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	d, server, answered, release := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Shutdown(ctx, server); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	close(release)
	<-answered
}

// A connection that never sends anything holds nothing up.
func TestDrain_IdleConnections(t *testing.T) {
	t.Parallel()
	d := drain.New()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d.Count(http.NotFoundHandler())}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := d.Shutdown(t.Context(), server); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	<-served
}

// A server that counts its connections has ended with the last of them; one that does not looks
// for that now and then.
func TestDrain_EndsWithTheLastConnection(t *testing.T) {
	t.Parallel()
	for name, counting := range map[string]bool{"counting": true, "looking": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d, l := drain.New(), &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				server := &http.Server{Handler: d.Count(http.NotFoundHandler()), ReadHeaderTimeout: time.Minute}
				if counting {
					server.ConnState = d.ConnState
				}
				served := make(chan error, 1)
				go func() { served <- server.Serve(l) }()
				mine, theirs := net.Pipe()
				l.conns <- theirs
				if _, err := mine.Write([]byte("GET / HT")); err != nil { // half a request
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- d.Shutdown(t.Context(), server) }()
				synctest.Wait()
				begun := time.Now()
				_ = mine.Close()
				if err := errors.Join(<-ended, ignoreClosed(<-served)); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); (took == 0) != counting {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// pipes is a listener that hands out what it is given.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
