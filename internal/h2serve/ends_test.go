package h2serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/late"
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

// A handler that sets a deadline which has passed breaks its response, however soon it returns:
// whoever reads it does not take it for complete.
func TestServer_ADeadlineThatHasPassedBreaksTheResponse(t *testing.T) {
	t.Parallel()
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		ctrl := http.NewResponseController(w)
		_, _ = io.WriteString(w, "half of")
		_ = ctrl.Flush()
		_ = ctrl.SetWriteDeadline(time.Unix(1, 0))
	})))
	c := client(t)
	for range 50 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			t.Fatalf("the response was complete: %q", body)
		}
	}
}

// A peer that has nothing under way need not close its connection: it ends with the answer. Any other
// is told a second time, and given a while.
func TestServer_ConnectionsEndAtOnceWhereNothingIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, nothing := range map[string]bool{"nothing": true, "perhaps": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var server *h2serve.Server
			made := make(chan struct{})
			r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				<-made
				server.Retire(nothing)
				_, _ = io.WriteString(w, "goes")
			})))
			server = r.Server
			close(made)
			w := dial(t, r.addr)
			w.request(1, true, nil)
			told, answered := 0, false
			w.until(func(f http2.Frame) bool {
				switch f := f.(type) {
				case *http2.GoAwayFrame:
					told++
				case *http2.DataFrame:
					answered = answered || f.StreamEnded()
				case *http2.MetaHeadersFrame:
					answered = answered || f.StreamEnded()
				}
				return false
			})
			if want := map[bool]int{true: 1, false: 2}[nothing]; told != want || !answered {
				t.Errorf("told %d times to go, want %d; answered: %t", told, want, answered)
			}
			if err := r.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever is being served is served to the end, also where its peer has said that nothing is under way.
func TestServer_WhatIsServedEndsWell(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(w, "whole")
	})))
	w := dial(t, r.addr)
	w.request(1, true, nil)
	<-began
	r.Retire(true)
	<-time.After(600 * time.Millisecond) // longer than a connection stays on which nothing is under way
	close(release)
	var got []byte
	w.until(func(f http2.Frame) bool {
		if data, ok := f.(*http2.DataFrame); ok {
			got = append(got, data.Data()...)
		}
		return false
	})
	if string(got) != "whole" {
		t.Errorf("answer %q", got)
	}
}

// Whoever is told of the end of a request hears of everything that ends it, and of the reason where that has one.
func TestServer_TellsOfTheEndOfARequest(t *testing.T) {
	t.Parallel()
	errOver := errors.New("it is over")
	for name, tt := range map[string]struct {
		end  func(end context.CancelCauseFunc, s *h2serve.Server, w *wire)
		want error
	}{
		"the context of all requests ends": {func(end context.CancelCauseFunc, _ *h2serve.Server, _ *wire) { end(errOver) }, errOver},
		"the server closes":                {func(_ context.CancelCauseFunc, s *h2serve.Server, _ *wire) { _ = s.Close() }, context.Canceled},
		"the peer resets it": {func(_ context.CancelCauseFunc, _ *h2serve.Server, w *wire) {
			w.ok(w.WriteRSTStream(1, http2.ErrCodeCancel))
		}, context.Canceled},
		"the peer goes": {func(_ context.CancelCauseFunc, _ *h2serve.Server, w *wire) { _ = w.nc.Close() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heard, begun, over := make(told, 1), make(chan struct{}), make(chan struct{})
			cfg := config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				late.OnEnd(r.Context(), heard)
				close(begun)
				<-over // it does not look at its context
			}))
			var end context.CancelCauseFunc
			cfg.Context, end = context.WithCancelCause(t.Context())
			t.Cleanup(func() { end(nil) })
			s := start(t, cfg)
			defer close(over)
			w := dial(t, s.addr)
			w.request(1, true, nil)
			<-begun
			tt.end(end, s.Server, w)
			select {
			case got := <-heard:
				if !errors.Is(got, tt.want) {
					t.Errorf("told of %v, want %v", got, tt.want)
				}
			case <-time.After(wait):
				t.Error("nobody was told")
			}
		})
	}
}

// told is told of ends.
type told chan error

func (c told) Ended(cause error) { c <- cause }

// ordered is a context of another package, which has those who asked first be told last.
type ordered struct {
	mu   sync.Mutex
	err  error
	done chan struct{}
	asks []func()
}

func (*ordered) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }
func (o *ordered) Done() <-chan struct{}                 { return o.done }
func (*ordered) Value(any) any                           { return nil }
func (o *ordered) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// AfterFunc is what package context asks for.
func (o *ordered) AfterFunc(f func()) (stop func() bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asks = append(o.asks, f)
	return func() bool { return true }
}

// end ends it. What is given is called after one was told, before the next is.
func (o *ordered) end(err error, between func()) {
	o.mu.Lock()
	o.err = err
	asks := o.asks
	o.mu.Unlock()
	close(o.done)
	for i, ask := range slices.Backward(asks) {
		if ask(); i > 0 {
			between()
		}
	}
}

// Whoever is told of the end of the context of all requests finds that its own has ended with it, and why, in whichever order others
// are told.
func TestServer_TellsWhenItsContextHasEnded(t *testing.T) {
	t.Parallel()
	errOver := errors.New("it is over")
	heard, begun, over := make(told, 1), make(chan struct{}), make(chan struct{})
	cfg := config(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		late.OnEnd(r.Context(), heard)
		close(begun)
		<-over
	}))
	all := &ordered{done: make(chan struct{})}
	cfg.Context = all
	s := start(t, cfg)
	defer close(over)
	w := dial(t, s.addr)
	w.request(1, true, nil)
	<-begun
	var got error
	all.end(errOver, func() { got = <-heard })
	if got == nil {
		got = <-heard
	}
	if !errors.Is(got, errOver) {
		t.Errorf("told of %v, want %v", got, errOver)
	}
}

// A request that the peer has given up is not refused any more.
func TestServer_RefusesNothingThatHasEnded(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	r := start(t, config(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuser, ok := w.(interface{ Refuse() bool }); r.URL.Path == "/refused" && ok {
			close(begun)
			<-r.Context().Done()
			refuser.Refuse()
		}
	})))
	w := dial(t, r.addr)
	w.request(1, true, map[string]string{":path": "/refused"})
	<-begun
	w.ok(w.WriteRSTStream(1, http2.ErrCodeCancel))
	ended := make(chan error, 1)
	w.ok(w.WritePing(false, [8]byte{1}))
	go func() { ended <- r.Shutdown(t.Context()) }()
	w.until(func(f http2.Frame) bool {
		if reset, ok := f.(*http2.RSTStreamFrame); ok {
			t.Errorf("stream %d is reset: %v", reset.StreamID, reset.ErrCode)
		}
		return false
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
