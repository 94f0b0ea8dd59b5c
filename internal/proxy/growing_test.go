package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

// TestAudit_USE10_GrowingResponseIsPassedOn has a provider write piece by piece, the
// next when the caller has the one before, whatever the call looks like.
func TestAudit_USE10_GrowingResponseIsPassedOn(t *testing.T) {
	t.Parallel()
	const pieces = 3
	tests := map[string]struct {
		method, request, response string
		length                    bool
	}{
		"server-sent events":  {method: http.MethodGet, response: "text/event-stream"},
		"lines of JSON":       {method: http.MethodPost, request: "application/json", response: "application/x-ndjson"},
		"JSON":                {method: http.MethodPost, request: "application/json", response: "application/json"},
		"no type":             {method: http.MethodGet, response: ""},
		"like a unary call":   {method: http.MethodPost, request: unaryType, response: unaryType},
		"of a stated length":  {method: http.MethodPost, request: "application/json", response: "application/octet-stream", length: true},
		"a form":              {method: http.MethodPost, request: "application/x-www-form-urlencoded", response: "text/html"},
		"gRPC":                {method: http.MethodPost, request: "application/grpc", response: "application/grpc"},
		"a type of one's own": {method: http.MethodPost, request: "application/vnd.acme+json", response: "application/vnd.acme"},
	}
	for name, test := range tests {
		for _, size := range []int{10, 50 << 10} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				t.Parallel()
				got := make(chan struct{}, pieces)
				piece := bytes.Repeat([]byte("x"), size)
				g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", test.response)
					if test.length {
						w.Header().Set("Content-Length", fmt.Sprint(pieces*size))
					}
					for range pieces {
						_, _ = w.Write(piece)
						_ = http.NewResponseController(w).Flush()
						<-got
					}
				}})
				defer func() { // whatever becomes of it, the handler ends
					for range pieces {
						select {
						case got <- struct{}{}:
						default:
						}
					}
				}()
				req, err := http.NewRequestWithContext(t.Context(), test.method, g.url("Call"), http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", test.request)
				done := make(chan error, 1)
				go func() { done <- readPieces(g.client, req, got, pieces, size) }()
				if err := await(t, done, "response"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// readPieces reads a response piece by piece and tells of each.
func readPieces(client *http.Client, req *http.Request, got chan<- struct{}, pieces, size int) error {
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for range pieces {
		if _, err := io.ReadFull(res.Body, make([]byte, size)); err != nil {
			return err
		}
		got <- struct{}{}
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// TestAudit_USE05_UploadNobodyReads has A post to a handler that does not read, once
// and many times, and B use other handlers of the same provider.
func TestAudit_USE05_UploadNobodyReads(t *testing.T) {
	t.Parallel()
	for _, uploads := range []int{1, 20} {
		t.Run(fmt.Sprint(uploads), func(t *testing.T) {
			t.Parallel()
			stalled := make(chan struct{}, uploads)
			stop := make(chan struct{})
			g := newRig(t, rigConfig{
				handler: func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("X-Stay") != "" {
						stalled <- struct{}{}
						<-stop
						return
					}
					readAllEcho(w, r)
				},
				call: func(r *http.Request, c *proxy.Call) *http.Request {
					c.CallerID = r.Header.Get("X-Who")
					return r
				},
			})
			t.Cleanup(func() { close(stop) })
			a := newClient(t, g.host) // a connection of its own, as another caller has
			for range uploads {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url("Call"), bytes.NewReader(make([]byte, 4<<20)))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Stay", "1")
				req.Header.Set("X-Who", "a")
				go func() {
					if res, err := a.Do(req); err == nil {
						res.Body.Close()
					}
				}()
				await(t, stalled, "upload")
			}
			for _, size := range []int{5, 1 << 20} {
				body := strings.Repeat("x", size)
				got := make(chan int, 1)
				go func() {
					_, answer := g.post(t, unaryType, strings.NewReader(body), "X-Who", "b")
					got <- len(answer)
				}()
				if n := await(t, got, "answer"); n != size {
					t.Errorf("%d bytes of %d", n, size)
				}
			}
		})
	}
}

// TestAudit_USE07_LargeErrorDetailsPass has a provider answer with large trailers,
// with a body before them and without one.
func TestAudit_USE07_LargeErrorDetailsPass(t *testing.T) {
	t.Parallel()
	for _, size := range []int{60 << 10, 100 << 10, 300 << 10} {
		for _, head := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d,head=%v", size, head), func(t *testing.T) {
				t.Parallel()
				details := strings.Repeat("x", size)
				g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/grpc")
					prefix := ""
					if head {
						_ = http.NewResponseController(w).Flush()
						prefix = http.TrailerPrefix
					}
					w.Header().Set(prefix+"Grpc-Status", "9")
					w.Header().Set(prefix+"Grpc-Status-Details-Bin", details)
				}, call: func(r *http.Request, c *proxy.Call) *http.Request {
					c.Ending = func(_ proxy.Class, err error) (proxy.Status, bool) {
						return proxy.Status{Code: proxy.CodeOf(err), Message: "too large"}, true
					}
					return r
				}})
				res, _ := g.post(t, "application/grpc", http.NoBody)
				r := g.result(t)
				fields := res.Header
				if head {
					fields = res.Trailer
				}
				if size < 256<<10 { // the default bound
					if r.Class != proxy.ClassOK || fields.Get("Grpc-Status") != "9" || len(fields.Get("Grpc-Status-Details-Bin")) != size {
						t.Errorf("result %+v, status %q", r, fields.Get("Grpc-Status"))
					}
					return
				}
				if r.Class != proxy.ClassResponse || !proxy.TooLarge(r.Err) || r.Fault || head && fields.Get("Grpc-Status") != "8" {
					t.Errorf("result %+v, status %q", r, fields.Get("Grpc-Status"))
				}
			})
		}
	}
}
