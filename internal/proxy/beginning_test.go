package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// What breaks in the middle of a message ends with what is to be said, where the message is
// held back, and in gRPC; otherwise it does not end well.
func TestEndingInTheMiddleOfAMessage(t *testing.T) {
	t.Parallel()
	whole, long := envelope(0, "hello"), envelope(0, strings.Repeat("x", 20<<10))
	begins := map[string]struct{ first, passed string }{
		"in the head":            {whole[:3], ""},
		"in the payload":         {whole[:7], ""},
		"in the second one":      {whole + whole[:9], whole},
		"in the second one's":    {whole + whole[:2], whole},
		"in one that is long":    {whole + long[:9], whole + long[:9]},
		"far in one that is":     {long[:18<<10], long[:18<<10]},
		"behind one that is":     {long + whole[:9], long},
		"after the end":          {envelope(0x82, "end"), envelope(0x82, "end")},
		"in the end that is not": {whole + envelope(0x82, "end")[:6], whole},
	}
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		for name, c := range begins {
			if memory {
				c.passed = c.first
			}
			for _, contentType := range streamTypes {
				if contentType == grpcType && strings.Contains(name, "end") {
					continue // the end of a gRPC stream is in its trailer
				}
				t.Run(name+"/"+contentType, func(t *testing.T) {
					t.Parallel()
					g, end := endingRig(t, memory, holdAfter(c.first))
					res := g.open(t, contentType, strings.NewReader("x"))
					readHeld(t, res, c.passed)
					end(errIdentityEnded)
					rest, err := io.ReadAll(res.Body)
					aborted := contentType != grpcType && (memory || strings.Contains(name, "one that is") && !strings.HasPrefix(name, "behind") || name == "after the end")
					told := string(rest) + res.Trailer.Get("Grpc-Message")
					if aborted != (err != nil) || !aborted && !strings.Contains(told, "signed out") || strings.HasPrefix(string(rest), whole[:2]) {
						t.Errorf("aborted %v, after %q, trailer %v", err, rest, res.Trailer)
					}
					g.wantClass(t, proxy.ClassCanceled)
				})
			}
		}
	})
}

// What is held of a message that its provider does not complete, and ends well, is passed on.
func TestBeginningOfAMessageThatIsAll(t *testing.T) {
	t.Parallel()
	for _, contentType := range streamTypes {
		for _, body := range []string{envelope(0, "hello")[:7], envelope(0, "hello") + "\x00\x00", ""} {
			t.Run(fmt.Sprintf("%s/%d", contentType, len(body)), func(t *testing.T) {
				t.Parallel()
				g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", contentType)
					_, _ = io.WriteString(w, body)
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
				}})
				res, got := g.post(t, contentType, http.NoBody)
				if string(got) != body || res.Trailer.Get("Grpc-Status") != "0" {
					t.Errorf("%q, %v", got, res.Trailer)
				}
				g.wantClass(t, proxy.ClassOK)
			})
		}
	}
}

// Messages that come in pieces pass as they were.
func TestMessagesInPieces(t *testing.T) {
	t.Parallel()
	body := envelope(0, "") + envelope(1, "one") + envelope(0, strings.Repeat("y", 17<<10)) + envelope(0, strings.Repeat("z", 9<<10)) + envelope(0, "last")
	for _, size := range []int{1, 5, 6, 4096, 16<<10 + 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", grpcWebType)
				for rest := body; rest != ""; {
					n := min(size, len(rest))
					_, _ = io.WriteString(w, rest[:n])
					if rest = rest[n:]; len(rest) > len(body)-40 || size > 1000 {
						_ = http.NewResponseController(w).Flush()
					}
				}
			}})
			if _, got := g.post(t, grpcWebType, http.NoBody); string(got) != body {
				t.Errorf("%d bytes of %d", len(got), len(body))
			}
			g.wantClass(t, proxy.ClassOK)
		})
	}
}

// A provider that dies is an error with a code: in the middle of a unary answer, whatever of it
// was there, as if there were none of it.
func TestProviderDies(t *testing.T) {
	t.Parallel()
	message := envelope(0, "hello")
	for name, c := range map[string]struct {
		contentType, version, first, passed string
		status                              int // the host's own answer, where it is asked for one
	}{
		"between two messages": {grpcType, "", message, message, 0},
		"in the second one":    {grpcType, "", message + message[:8], message, 0},
		"unary, a part":        {unaryType, "1", "hello", "", http.StatusBadGateway},
		"unary, the head":      {unaryType, "1", "", "", http.StatusBadGateway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := make(chan struct{})
			handler := holdAfter(c.first)
			g := newRig(t, rigConfig{
				handler: func(w http.ResponseWriter, r *http.Request) {
					time.AfterFunc(300*time.Millisecond, func() { close(begun) }) // longer than a response is gathered, on a busy machine too
					handler(w, r)
				},
				call: func(r *http.Request, c *proxy.Call) *http.Request {
					c.Ending = func(class proxy.Class, _ error) (proxy.Status, bool) {
						return proxy.Status{Code: 14, Name: "unavailable"}, class == proxy.ClassReset
					}
					return r
				},
			})
			go func() {
				<-begun
				g.target.CloseClientConnections()
			}()
			res, body := g.post(t, c.contentType, strings.NewReader("x"), "Connect-Protocol-Version", c.version)
			if string(body) != c.passed || c.status == 0 && res.Trailer.Get("Grpc-Status") != "14" || c.status != 0 && res.StatusCode != c.status {
				t.Errorf("status %d, body %q, trailer %v", res.StatusCode, body, res.Trailer)
			}
			if r := g.wantClass(t, proxy.ClassReset); r.Written == (c.status != 0) || !r.Fault || r.Retryable || !r.Sent {
				t.Errorf("result %+v", r)
			}
		})
	}
}
