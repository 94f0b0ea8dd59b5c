package proxy_test

import (
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
					cfg.Challenge = func() (proxy.Challenge, error) {
						return proxy.Challenge{Path: "/challenge", Message: []byte("m"), Check: func(status int, _ []byte) error {
							if status != http.StatusOK {
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
