package proxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// slowBody is a body whose sender takes its time for each of its bytes.
type slowBody struct {
	left  int
	pause time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	time.Sleep(b.pause)
	if b.left == 0 {
		return 0, io.EOF
	}
	b.left--
	p[0] = 'x'
	return 1, nil
}

func (*slowBody) Close() error { return nil }

// TestAudit_ATK09_ASlowCallerMakesNoSlowProvider has a caller that dawdles with what it sends,
// to a provider that answers at once or takes a second itself.
func TestAudit_ATK09_ASlowCallerMakesNoSlowProvider(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]bool{"memory": true, "network": false} {
		for _, took := range []time.Duration{0, time.Second} {
			t.Run(name+" "+took.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					pd := &played{on: func(c *playedConn, f http2.Frame) {
						if data, ok := f.(*http2.DataFrame); ok && data.StreamEnded() {
							time.Sleep(took)
							c.answer(f.Header().StreamID, "200")
						}
					}}
					p := newPlayed(t, pd, func(c *proxy.Config) {
						if memory {
							*c = proxy.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
								readAllEcho(w, r)
								time.Sleep(took)
							})}
						}
					})
					const bytes = 5
					r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
					r.Header.Set("Content-Type", "application/proto")
					r.Body, r.ContentLength = &slowBody{left: bytes, pause: time.Minute}, bytes
					begun := time.Now()
					result := p.Forward(httptest.NewRecorder(), r, proxy.Call{Path: "/a"})
					if result.Class == proxy.ClassCanceled || time.Since(begun) < bytes*time.Minute {
						t.Fatalf("result %+v after %v", result, time.Since(begun))
					}
					if got := result.Latency; got > took+time.Second/2 || !memory && got < took {
						t.Errorf("latency %v of a provider that takes %v", got, took)
					}
				})
			})
		}
	}
}

// A connection takes no call before its provider answered the challenge, and none where the
// answer is wrong or does not come.
func TestChallenge(t *testing.T) {
	t.Parallel()
	errWrong := errors.New("wrong")
	for name, c := range map[string]struct {
		status string // that the challenge is answered with, empty for no answer
		ok     bool
	}{"right": {"200", true}, "wrong": {"404", false}, "silent": {"", false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls, challenges := 0, 0
				pd := &played{}
				pd.on = func(conn *playedConn, f http2.Frame) {
					head, ok := f.(*http2.HeadersFrame)
					switch {
					case !ok:
					case head.StreamID > 1:
						calls++
						conn.answer(head.StreamID, "200")
					case c.status != "":
						challenges++
						conn.answer(head.StreamID, c.status)
					}
				}
				p := newPlayed(t, pd, func(cfg *proxy.Config) {
					cfg.Challenge = func(*tls.ConnectionState) (proxy.Challenge, error) {
						return proxy.Challenge{Path: "/challenge", Message: []byte("m"), Check: func(a proxy.Answer) error {
							if a.Status != http.StatusOK {
								return errWrong
							}
							return nil
						}}, nil
					}
				})
				result := ask(t.Context(), p, proxy.Call{})
				switch {
				case c.ok && (result.Class != proxy.ClassOK || calls != 1 || challenges != 1):
					t.Errorf("result %+v, %d calls, %d challenges", result, calls, challenges)
				case !c.ok && (result.Class != proxy.ClassUnavailable || result.Sent || calls != 0 || (c.status != "") != errors.Is(result.Err, errWrong)):
					t.Errorf("result %+v, %d calls", result, calls)
				}
			})
		})
	}
}

// A question that calls need not wait for holds up none, ends no connection whatever the answer is, and whoever asks hears of
// it: also that the provider itself said that it is not found, in the protocol that it understands.
func TestChallenge_Meanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   proxy.Answer
	}{
		"an answer": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "yes") }, proxy.Answer{Status: http.StatusOK, Message: []byte("yes")}},
		"not found": {func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"code":"not_found"}`)
		}, proxy.Answer{Status: http.StatusNotFound, NotFound: true, Message: []byte(`{"code":"not_found"}`)}},
		"no such procedure": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, proxy.Answer{Status: http.StatusNotFound}},
		"not found in gRPC": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "5")
		}, proxy.Answer{Status: http.StatusNotFound, NotFound: true}},
		"not found in gRPC, in the trailer": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(http.StatusOK)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
		}, proxy.Answer{Status: http.StatusNotFound, NotFound: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			called, answers := make(chan struct{}), make(chan proxy.Answer, 1)
			srv := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/challenge" {
					<-called
					c.answer(w)
				}
			})
			cfg := proxy.Config{Endpoint: endpointOf(t, srv.URL), TLS: &tls.Config{RootCAs: poolOf(srv)}}
			cfg.DialTimeout = patience // the machine may be busy
			cfg.Challenge = func(shown *tls.ConnectionState) (proxy.Challenge, error) {
				if shown == nil || len(shown.PeerCertificates) == 0 {
					t.Error("nothing is known of the connection")
				}
				return proxy.Challenge{Path: "/challenge", Meanwhile: true, Check: func(a proxy.Answer) error {
					answers <- a
					return errors.New("wrong")
				}}, nil
			}
			p := newProvider(t, cfg)
			if result := ask(t.Context(), p, proxy.Call{}); result.Class != proxy.ClassOK {
				t.Errorf("result %+v", result)
			}
			close(called)
			if got := <-answers; got.Status != c.want.Status || got.NotFound != c.want.NotFound || !bytes.Equal(got.Message, c.want.Message) {
				t.Errorf("answer %+v, want %+v", got, c.want)
			}
			if result := ask(t.Context(), p, proxy.Call{}); result.Class != proxy.ClassOK {
				t.Errorf("after the answer: result %+v", result)
			}
		})
	}
}
