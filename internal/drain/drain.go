// Package drain shuts HTTP servers down when what they serve is done.
package drain

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// flushTime is how long the answers to the last requests may take to leave once
// no request is being served any more.
const flushTime = 500 * time.Millisecond

// Drain shuts a server down when the requests in flight are done. The server
// alone would wait for connections too: one that is set up while the server shuts
// down is never told to go away, so that a stranger could hold the end up.
type Drain struct {
	requests atomic.Int64
	quiet    chan struct{} // capacity one: the last request in flight is done

	conns atomic.Int64
	known atomic.Bool   // connections are counted
	empty chan struct{} // capacity one: the last connection is closed
}

// New returns the drain of one server.
func New() *Drain {
	return &Drain{quiet: make(chan struct{}, 1), empty: make(chan struct{}, 1)}
}

// ConnState counts connections, as the server's own ConnState, which is not needed: with it
// Shutdown returns when the last connection is closed, instead of looking every few
// milliseconds.
func (d *Drain) ConnState(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.known.Store(true)
		d.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		if d.conns.Add(-1) == 0 {
			select {
			case d.empty <- struct{}{}:
			default:
			}
		}
	case http.StateActive, http.StateIdle:
	}
}

// Count counts the requests that next serves. It belongs around all that the
// server serves.
func (d *Drain) Count(next http.Handler) http.Handler {
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

// Shutdown ends the server. The error is that of ctx where it ended before the
// requests in flight were done; the server is still running then.
func (d *Drain) Shutdown(ctx context.Context, server *http.Server) error {
	stopped := make(chan error, 1)
	stopping, stop := context.WithCancel(ctx)
	defer stop()
	go func() { stopped <- server.Shutdown(stopping) }()
	for d.requests.Load() > 0 {
		select {
		case err := <-stopped:
			return err
		case <-d.quiet:
		}
	}
	t := time.NewTimer(flushTime)
	defer t.Stop()
	for waiting := true; waiting && !d.gone(); {
		select {
		case err := <-stopped:
			if err == nil {
				return nil
			}
			return closeServer(server)
		case <-d.empty:
		case <-t.C:
			waiting = false
		}
	}
	err := closeServer(server)
	stop()
	<-stopped //nolint:errcheck // it was closed
	return err
}

// gone reports whether every connection is closed, as far as that is known.
func (d *Drain) gone() bool { return d.known.Load() && d.conns.Load() == 0 }

func closeServer(server *http.Server) error {
	if err := server.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}
