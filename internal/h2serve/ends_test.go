package h2serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
)

// A connection may end with requests in its buffer: none is begun that nobody would end.
func TestServer_NoHandlerOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	var begun, over atomic.Int32
	var once sync.Once
	var server *h2serve.Server
	cfg := config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun.Add(1)
		defer over.Add(1)
		if r.URL.Path == "/first" {
			once.Do(func() { _ = server.Close() })
			return
		}
		_, _ = io.ReadAll(r.Body)
	}))
	cfg.MaxStreams = 1000
	l := listen(t)
	server = h2serve.New(cfg)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	w := dial(t, l.Addr().String())
	var record bytes.Buffer
	framer := w.Framer
	w.Framer = http2.NewFramer(&record, nil)
	w.request(1, true, map[string]string{":path": "/first"})
	for id := uint32(3); record.Len() < 15<<10; id += 2 {
		w.request(id, false, nil)
	}
	w.Framer = framer
	_, _ = w.nc.Write(record.Bytes())
	<-served
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("%d handlers were begun, %d are over: %v", begun.Load(), over.Load(), err)
	}
}

// A handler that goes on without its connection does not hold Shutdown up for longer than asked.
func TestServer_ShutdownKeepsItsTime(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	r := start(t, config(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(began)
		<-release
	})))
	w := dial(t, r.addr)
	w.request(1, true, nil)
	<-began
	_ = w.nc.NetConn().Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
}
