//go:build unix

package probes_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/probes"
)

// short is a listener of a system that cannot accept for a while.
type short struct {
	net.Listener

	err   error
	fails atomic.Int32 // how often it will
}

func (l *short) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", l.err)}
	}
	return l.Listener.Accept()
}

// A server whose system has no connection to give for a moment goes on; one whose listener is gone ends.
func TestServeOutlastsWhatPasses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		ends bool
	}{
		"no memory":            {err: syscall.ENOMEM},
		"no buffers":           {err: syscall.ENOBUFS},
		"a newcomer that left": {err: syscall.EPROTO},
		"no descriptors":       {err: syscall.EMFILE},
		"no listener":          {err: syscall.EBADF, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			below, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := &short{Listener: below, err: tt.err}
			l.fails.Store(3)
			s := probes.New(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusTeapot)
			}), slog.New(slog.DiscardHandler))
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			defer s.Shutdown(context.WithoutCancel(t.Context()))
			if tt.ends {
				if err := <-served; !errors.Is(err, tt.err) {
					t.Errorf("it ends with %v", err)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+below.Addr().String(), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusTeapot {
				t.Errorf("it answers %s", resp.Status)
			}
		})
	}
}
