package connectplugin

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// lastWords is how long the answers to the last requests may take to leave once
// no request is being served any more.
const lastWords = 500 * time.Millisecond

// drain shuts a server down when the requests in flight are done. The server
// alone would wait for connections too: one that is set up while the server shuts
// down is never told to go away, so that a stranger could hold the end up.
type drain struct {
	requests atomic.Int64
	quiet    chan struct{} // capacity one: the last request in flight is done
}

func newDrain() *drain { return &drain{quiet: make(chan struct{}, 1)} }

// count counts the requests that next serves.
func (d *drain) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.requests.Add(1)
		defer func() {
			if d.requests.Add(-1) == 0 {
				select {
				case d.quiet <- struct{}{}:
				default:
				}
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// shutdown ends the server. The error is that of ctx where it ended before the
// requests in flight were done; the server is still running then.
func (d *drain) shutdown(ctx context.Context, server *http.Server) error {
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(ctx) }()
	for d.requests.Load() > 0 {
		select {
		case err := <-stopped:
			return err
		case <-d.quiet:
		}
	}
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case err := <-stopped:
		if err == nil {
			return nil
		}
		return closeServer(server)
	case <-t.C:
	}
	err := closeServer(server)
	<-stopped //nolint:errcheck // it was closed
	return err
}

func closeServer(server *http.Server) error {
	if err := server.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
