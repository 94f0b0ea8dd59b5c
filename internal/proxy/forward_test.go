package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

const (
	unaryType   = "application/proto"
	connectType = "application/connect+proto"
	grpcType    = "application/grpc+proto"
	grpcWebType = "application/grpc-web+proto"
)

var streamTypes = []string{connectType, grpcType, grpcWebType}

// everyWay runs a test against a provider on the network and one in the host's
// process.
func everyWay(t *testing.T, f func(t *testing.T, memory bool)) {
	t.Helper()
	for _, memory := range []bool{false, true} {
		t.Run("memory="+strconv.FormatBool(memory), func(t *testing.T) {
			t.Parallel()
			f(t, memory)
		})
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_ = http.NewResponseController(w).EnableFullDuplex()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		if err != nil {
			return
		}
	}
}

func readAllEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(body)
}

func TestUnary(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{handler: readAllEcho, memory: memory})
		for _, size := range []int{0, 1, 256, 5 << 10, 64 << 10, 128 << 10, 128<<10 + 1, 3 << 20} {
			want := bytes.Repeat([]byte("x"), size)
			for _, body := range []io.Reader{bytes.NewReader(want), io.MultiReader(bytes.NewReader(want))} {
				res, got := g.post(t, unaryType, body)
				if res.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
					t.Fatalf("size %d: status %d, %d bytes", size, res.StatusCode, len(got))
				}
				r := g.wantClass(t, proxy.ClassOK)
				if r.Status != http.StatusOK || !r.Written || r.Retryable || r.Latency <= 0 || r.Err != nil {
					t.Fatalf("result %+v", r)
				}
			}
		}
	})
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{handler: echo, memory: memory, config: func(c *proxy.Config) { c.CallsPerConn = 8 }})
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for j := range 6 {
					want := bytes.Repeat([]byte{byte(i), byte(j)}, 1+i*j*100)
					contentType := unaryType
					if j%2 == 0 {
						contentType = grpcType
					}
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url("Call"), bytes.NewReader(want))
					req.Header.Set("Content-Type", contentType)
					res, err := g.client.Do(req)
					if err != nil {
						t.Errorf("call: %v", err)
						return
					}
					got, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes back of %d: %v", len(got), len(want), err)
					}
				}
			})
		}
		wg.Wait()
		if n := g.conns.Load(); !memory && (n < 1 || n > proxy.DefaultMaxConns) {
			t.Errorf("%d connections", n)
		}
	})
}

func TestAudit_H35_GetWithQueryPasses(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.URL.RawQuery)
		}})
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url("Call?message=%7B%7D&encoding=json&connect=v1"), nil)
		res, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, _ := io.ReadAll(res.Body)
		if want := "GET /echo.v1.Echo/Call message=%7B%7D&encoding=json&connect=v1"; string(got) != want {
			t.Errorf("provider saw %q, want %q", got, want)
		}
	})
}

// TestGetOfUnstatedLength has the end of an empty body come after the headers.
func TestGetOfUnstatedLength(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(_ http.ResponseWriter, r *http.Request) {
			if r.ContentLength != 0 {
				t.Errorf("length %d", r.ContentLength)
			}
		}})
		for body, want := range map[string]proxy.Class{"": proxy.ClassOK, "x": proxy.ClassRefused} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url("Call"), io.MultiReader(strings.NewReader(body)))
			res, err := g.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			g.wantClass(t, want)
		}
	})
}

func TestAudit_H38_OtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(http.ResponseWriter, *http.Request) { t.Error("provider was called") }})
		for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND", "GET"} {
			var body io.Reader
			if method == http.MethodGet {
				body = strings.NewReader("a body")
			}
			req, _ := http.NewRequestWithContext(t.Context(), method, g.url("Call"), body)
			res, err := g.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if r := g.wantClass(t, proxy.ClassRefused); !errors.Is(r.Err, proxy.ErrMethod) || r.Written || r.Retryable {
				t.Errorf("%s: %+v", method, r)
			}
		}
	})
}

func TestAudit_H29_RedirectIsNotForwarded(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		for _, status := range []int{301, 302, 303, 304, 307, 308} {
			t.Run(strconv.Itoa(status), func(t *testing.T) {
				t.Parallel()
				g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
					w.WriteHeader(status)
				}})
				res, _ := g.post(t, unaryType, strings.NewReader("x"))
				if res.StatusCode != http.StatusBadGateway || res.Header.Get("Location") != "" {
					t.Errorf("status %d, location %q", res.StatusCode, res.Header.Get("Location"))
				}
				if r := g.wantClass(t, proxy.ClassResponse); !errors.Is(r.Err, proxy.ErrResponse) || r.Written || r.Status != status {
					t.Errorf("result %+v", r)
				}
			})
		}
	})
}

func TestErrorStatusPasses(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		var answer atomic.Int64
		g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(int(answer.Load()))
			_, _ = io.WriteString(w, `{"code":"resource_exhausted"}`)
		}})
		for _, status := range []int{http.StatusBadRequest, http.StatusTooManyRequests, http.StatusServiceUnavailable, 600, 999} {
			answer.Store(int64(status))
			res, got := g.post(t, unaryType, strings.NewReader("x"))
			if res.StatusCode != status || string(got) != `{"code":"resource_exhausted"}` {
				t.Errorf("status %d, body %q, want status %d", res.StatusCode, got, status)
			}
			if r := g.wantClass(t, proxy.ClassOK); r.Status != status {
				t.Errorf("result %+v", r)
			}
		}
	})
}

func TestAudit_H37_TrailersAreKept(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Announced")
			w.Header().Set("Content-Type", grpcType)
			readAllEcho(w, r)
			w.Header().Set("Announced", "yes")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "5")
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", "not%20found")
			w.Header().Add(http.TrailerPrefix+"X-Custom-Bin", "AAEC")
			w.Header().Add(http.TrailerPrefix+"X-Custom-Bin", "AwQF")
			w.Header().Set(http.TrailerPrefix+"Set-Cookie", "a=b")
			w.Header().Set(http.TrailerPrefix+"X-Plugin-Caller-Id", "forged")
		}})
		res, got := g.post(t, grpcType, io.MultiReader(strings.NewReader("body")))
		want := http.Header{
			"Announced": {"yes"}, "Grpc-Status": {"5"}, "Grpc-Message": {"not%20found"}, "X-Custom-Bin": {"AAEC", "AwQF"},
		}
		if string(got) != "body" || fmt.Sprint(res.Trailer) != fmt.Sprint(want) {
			t.Errorf("body %q, trailer %v, want %v", got, res.Trailer, want)
		}
		if res.Header.Get("Grpc-Status") != "" {
			t.Error("status moved to the headers")
		}
	})
}

func TestAudit_H37_TrailersOnlyStaysInHeaders(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", grpcType)
			w.Header().Set("Grpc-Status", "12")
			w.WriteHeader(http.StatusOK)
		}})
		res, got := g.post(t, grpcType, strings.NewReader("\x00\x00\x00\x00\x00"))
		if res.Header.Get("Grpc-Status") != "12" || len(res.Trailer) != 0 || len(got) != 0 {
			t.Errorf("header %v, trailer %v, body %q", res.Header, res.Trailer, got)
		}
	})
}

func TestAudit_H34_FullDuplexFlushesAtOnce(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		for _, contentType := range append([]string{"application/grpc-web-text+proto", "application/grpc", "text/plain", ""}, streamTypes...) {
			t.Run(contentType, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, rigConfig{handler: func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
					w.WriteHeader(http.StatusOK)
					_ = http.NewResponseController(w).Flush()
					echo(w, r)
				}, memory: memory})
				pr, pw := io.Pipe()
				res := g.open(t, contentType, pr) // the headers come before anything was sent
				buf := make([]byte, 100)
				for i := range 20 {
					msg := fmt.Sprintf("message %d", i)
					_, _ = io.WriteString(pw, msg)
					n, err := io.ReadFull(res.Body, buf[:len(msg)])
					if err != nil || string(buf[:n]) != msg {
						t.Fatalf("got %q, %v", buf[:n], err)
					}
				}
				_ = pw.Close()
				if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
					t.Errorf("rest %q, %v", rest, err)
				}
				g.wantClass(t, proxy.ClassOK)
			})
		}
	})
}

func TestAudit_H36_EarlyEndDoesNotHang(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 3))
			w.Header().Set("Content-Type", grpcType)
			w.WriteHeader(http.StatusOK)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "9")
		}})
		pr, pw := io.Pipe() // never closed: the caller does not half-close
		defer pw.Close()
		go func() { _, _ = io.WriteString(pw, "abc") }()
		res, _ := g.post(t, grpcType, pr)
		if got := res.Trailer.Get("Grpc-Status"); got != "9" {
			t.Errorf("status %q", got)
		}
		g.wantClass(t, proxy.ClassOK)
	})
}

func TestCallerCancels(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		gone := make(chan error, 1)
		begun := make(chan struct{})
		g := newRig(t, rigConfig{memory: memory, handler: func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			<-r.Context().Done()
			gone <- r.Context().Err()
		}})
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, g.url("Call"), strings.NewReader("x"))
		go func() {
			<-begun
			cancel()
		}()
		if res, err := g.client.Do(req); !errors.Is(err, context.Canceled) {
			t.Errorf("response %v, error %v", res, err)
		}
		await(t, gone, "cancellation at the provider")
		r := g.wantClass(t, proxy.ClassCanceled)
		if !errors.Is(r.Err, context.Canceled) || r.Written || r.Retryable {
			t.Errorf("result %+v", r)
		}
	})
}

func TestAudit_H36_ProviderResetShowsAsError(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		for _, contentType := range append([]string{unaryType}, streamTypes...) {
			t.Run(contentType, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, rigConfig{memory: memory, handler: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", contentType)
					_, _ = w.Write(bytes.Repeat([]byte("x"), 300<<10))
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}})
				res := g.open(t, contentType, strings.NewReader("x"))
				if got, err := io.ReadAll(res.Body); err == nil {
					t.Errorf("clean end after %d bytes", len(got))
				}
				if r := g.wantClass(t, proxy.ClassReset); !r.Written || r.Retryable {
					t.Errorf("result %+v", r)
				}
			})
		}
	})
}

func TestProviderResetsBeforeAnything(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		g := newRig(t, rigConfig{memory: memory, handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }})
		res, _ := g.post(t, unaryType, strings.NewReader("x"))
		if res.StatusCode != http.StatusBadGateway {
			t.Errorf("status %d", res.StatusCode)
		}
		if r := g.wantClass(t, proxy.ClassReset); r.Written || r.Retryable {
			t.Errorf("result %+v", r)
		}
	})
}

func TestCallerBreaksOffItsRequest(t *testing.T) {
	t.Parallel()
	everyWay(t, func(t *testing.T, memory bool) {
		t.Helper()
		seen := make(chan error, 1)
		begun := make(chan struct{})
		g := newRig(t, rigConfig{memory: memory, handler: func(_ http.ResponseWriter, r *http.Request) {
			close(begun)
			_, err := io.ReadAll(r.Body)
			seen <- err
			panic(http.ErrAbortHandler)
		}})
		pr, pw := io.Pipe()
		go func() {
			_, _ = io.WriteString(pw, "half a message")
			<-begun
			_ = pw.CloseWithError(errors.New("caller broke"))
		}()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url("Call"), pr)
		if res, err := g.client.Do(req); err == nil {
			res.Body.Close()
			t.Error("call succeeded")
		}
		if err := await(t, seen, "end of the request"); err == nil {
			t.Error("provider saw a clean end of the request")
		}
		if r := g.result(t); r.Class == proxy.ClassOK {
			t.Errorf("result %+v", r)
		}
	})
}

// TestRequestBodyThatFails has no other sign of the failure than the body's own
// error.
func TestRequestBodyThatFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken body")
	for _, length := range []int64{-1, 1000} {
		t.Run(strconv.FormatInt(length, 10), func(t *testing.T) {
			t.Parallel()
			seen := make(chan error, 1)
			g := newRig(t, rigConfig{
				handler: func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.ReadAll(r.Body)
					seen <- err
				},
				call: func(r *http.Request, _ *proxy.Call) *http.Request {
					r.Body = io.NopCloser(io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)))
					r.ContentLength = length
					return r
				},
			})
			g.post(t, unaryType, strings.NewReader("x"))
			if r := g.wantClass(t, proxy.ClassCanceled); !errors.Is(r.Err, broken) || r.Written || r.Retryable {
				t.Errorf("result %+v", r)
			}
			if length < 0 {
				if err := await(t, seen, "end of the request"); err == nil {
					t.Error("provider saw a clean end of the request")
				}
			}
		})
	}
}
