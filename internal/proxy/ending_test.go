package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

var errIdentityEnded = errors.New("identity ended")

func envelope(flags byte, payload string) string {
	head := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(payload)))
	return string(head) + payload
}

// endingRig is a rig whose calls end with a cause when the function is called.
func endingRig(t *testing.T, memory bool, handler http.HandlerFunc) (*rig, context.CancelCauseFunc) {
	t.Helper()
	ended, end := context.WithCancelCause(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { end(nil) })
	g := newRig(t, rigConfig{
		memory:  memory,
		handler: handler,
		call: func(r *http.Request, c *proxy.Call) *http.Request {
			ctx, cancel := context.WithCancelCause(r.Context())
			context.AfterFunc(ended, func() { cancel(context.Cause(ended)) })
			c.Ending = func(class proxy.Class, err error) (proxy.Status, bool) {
				if class != proxy.ClassCanceled || !errors.Is(err, errIdentityEnded) {
					return proxy.Status{}, false
				}
				return proxy.Status{Code: 16, Name: "unauthenticated", Message: "signed out: 100% \r\n\"gone\" ü"}, true
			}
			return r.WithContext(ctx)
		},
	})
	return g, end
}

// markedWriter notes that its deadlines were set.
type markedWriter struct {
	httptest.ResponseRecorder

	marked atomic.Bool
}

func (w *markedWriter) SetReadDeadline(time.Time) error  { w.marked.Store(true); return nil }
func (w *markedWriter) SetWriteDeadline(time.Time) error { w.marked.Store(true); return nil }

// TestInterruptedCallIsNotRetried closes a provider while calls wait for a connection.
// One of them may be sent elsewhere only if its response was left alone.
func TestInterruptedCallIsNotRetried(t *testing.T) {
	t.Parallel()
	const rounds, calls = 30, 200
	for range rounds {
		p, err := proxy.New(proxy.Config{
			Endpoint: endpointOf(t, "http://127.0.0.1:1"),
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				w := &markedWriter{}
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/a", strings.NewReader("x"))
				if got := p.Forward(w, r, proxy.Call{Path: "/a"}); got.Written || got.Retryable && w.marked.Load() {
					t.Errorf("result %+v of a response with deadlines", got)
				}
			})
		}
		for deadline := time.Now().Add(patience); p.InFlight() < calls && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		p.Close()
		all.Wait()
	}
}

func holdAfter(first string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.WriteString(w, first)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		_, _ = io.WriteString(w, "too late")
	}
}

// readHeld reads what the provider sent before it went quiet.
func readHeld(t *testing.T, res *http.Response, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func TestAudit_PROTO31_StreamInFlightEndsWithClearCode(t *testing.T) {
	t.Parallel()
	const escaped = "signed out: 100%25 %0D%0A\"gone\" %C3%BC"
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		message := envelope(0, "hello")
		check := map[string]func(t *testing.T, res *http.Response, rest string){
			grpcType: func(t *testing.T, res *http.Response, rest string) {
				t.Helper()
				if res.Trailer.Get("Grpc-Status") != "16" || res.Trailer.Get("Grpc-Message") != escaped || rest != "" {
					t.Errorf("trailer %v, rest %q", res.Trailer, rest)
				}
			},
			grpcWebType: func(t *testing.T, _ *http.Response, rest string) {
				t.Helper()
				if want := envelope(0x80, "grpc-status: 16\r\ngrpc-message: "+escaped+"\r\n"); rest != want {
					t.Errorf("rest %q, want %q", rest, want)
				}
			},
			connectType: func(t *testing.T, _ *http.Response, rest string) {
				t.Helper()
				var end struct {
					Error struct{ Code, Message string }
				}
				if len(rest) < 5 || rest[0] != 2 || int(binary.BigEndian.Uint32([]byte(rest[1:5]))) != len(rest)-5 {
					t.Fatalf("rest %q", rest)
				}
				if err := json.Unmarshal([]byte(rest[5:]), &end); err != nil {
					t.Fatal(err)
				}
				if end.Error.Code != "unauthenticated" || end.Error.Message != "signed out: 100% \r\n\"gone\" ü" {
					t.Errorf("end %+v", end)
				}
			},
		}
		for contentType, f := range check {
			t.Run(contentType, func(t *testing.T) {
				t.Parallel()
				g, end := endingRig(t, memory, holdAfter(message))
				res := g.open(t, contentType, strings.NewReader("x"))
				readHeld(t, res, message)
				end(errIdentityEnded)
				rest, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatalf("stream ended with %v", err)
				}
				f(t, res, string(rest))
				if r := g.wantClass(t, proxy.ClassCanceled); !r.Written || !errors.Is(r.Err, errIdentityEnded) {
					t.Errorf("result %+v", r)
				}
			})
		}
	})
}

func TestEndedBeforeTheResponseLeavesTheAnswerToTheHost(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		begun := make(chan struct{})
		g, end := endingRig(t, memory, func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
		})
		go func() {
			<-begun
			end(errIdentityEnded)
		}()
		res, _ := g.post(t, grpcType, strings.NewReader("x"))
		if res.StatusCode != http.StatusBadGateway {
			t.Errorf("status %d", res.StatusCode)
		}
		if r := g.wantClass(t, proxy.ClassCanceled); r.Written || !errors.Is(r.Err, errIdentityEnded) {
			t.Errorf("result %+v", r)
		}
	})
}

func TestAudit_H36_CallerThatDoesNotReadIsInterrupted(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		var written atomic.Int64
		g, end := endingRig(t, memory, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", grpcType)
			block := bytes.Repeat([]byte{0xff}, 32<<10) // never between two messages
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
				written.Add(1)
			}
		})
		res := g.open(t, grpcType, strings.NewReader("x"))
		for last := int64(-1); last != written.Load(); time.Sleep(200 * time.Millisecond) {
			last = written.Load() // until all the windows are full
		}
		end(errIdentityEnded)
		g.wantClass(t, proxy.ClassCanceled)
		// Where the windows have room for it, the status comes behind the part of a message.
		_, err := io.Copy(io.Discard, res.Body)
		if status := res.Trailer.Get("Grpc-Status"); err == nil && (status == "" || status == "0") {
			t.Errorf("clean end with status %q", status)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		message := envelope(0, "hello")
		g := newRig(t, rigConfig{memory: memory, handler: holdAfter(message)})
		res := g.open(t, grpcType, strings.NewReader("x"))
		readHeld(t, res, message)
		if n := g.provider.InFlight(); n != 1 {
			t.Errorf("in flight %d", n)
		}
		short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := g.provider.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drain: %v", err)
		}
		refused, _ := g.post(t, unaryType, strings.NewReader("x"))
		if r := g.wantClass(t, proxy.ClassUnavailable); !errors.Is(r.Err, proxy.ErrClosed) || !r.Retryable || refused.StatusCode != http.StatusBadGateway {
			t.Errorf("call while draining: %+v", r)
		}
		g.provider.Close()
		if rest, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("clean end after %q", rest)
		}
		if r := g.wantClass(t, proxy.ClassReset); !errors.Is(r.Err, proxy.ErrClosed) {
			t.Errorf("result %+v", r)
		}
		if err := g.provider.Drain(t.Context()); err != nil {
			t.Errorf("drain: %v", err)
		}
		if n := g.conns.Load(); n != 0 {
			t.Errorf("%d connections left", n)
		}
		g.provider.Close()
	})
}

func TestDrainWaitsForCalls(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		_, _ = io.WriteString(w, "done")
	}})
	drained := make(chan error, 1)
	go func() {
		<-begun
		go func() { drained <- g.provider.Drain(t.Context()) }()
		time.Sleep(20 * time.Millisecond)
		close(release)
	}()
	_, got := g.post(t, unaryType, strings.NewReader("x"))
	if string(got) != "done" {
		t.Errorf("body %q", got)
	}
	if err := await(t, drained, "drain"); err != nil {
		t.Error(err)
	}
}
