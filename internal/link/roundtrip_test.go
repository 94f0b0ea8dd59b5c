package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/link"
)

func request(ctx context.Context, t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()

	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}

	return r
}

// A request and its response arrive as they are with net/http at both ends.
func TestRoundTrip_PassesEverything(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header()["X-Got"] = []string{r.Method, r.Host, r.URL.RequestURI(), r.Header.Get("X-Sent"), r.Header.Get("Connection")}
		w.Header().Set("Trailer", "X-Announced")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
		w.Header().Set("X-Announced", "yes")
		w.Header().Set(http.TrailerPrefix+"X-More", "too")
	}, 10)
	p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)

	for name, body := range map[string]io.Reader{
		"none":    http.NoBody,
		"short":   strings.NewReader("hello"),
		"long":    bytes.NewReader(bytes.Repeat([]byte("x"), 1<<20)),
		"unknown": iotest.OneByteReader(strings.NewReader("hello")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := request(t.Context(), t, http.MethodPost, s.URL+"/a%20b?q=1", body)
			want, _ := readAgain(r)
			r.Header.Set("X-Sent", "1")
			r.Header["connection"] = []string{"close"}

			resp, err := p.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()

			_, announced := resp.Trailer["X-Announced"]
			got, err := io.ReadAll(resp.Body)

			if resp.StatusCode != http.StatusTeapot || resp.ProtoMajor != 2 || err != nil || want != "" && string(got) != want {
				t.Errorf("%s, %d bytes, %v", resp.Status, len(got), err)
			}

			if x := strings.Join(resp.Header["X-Got"], " "); x != "POST "+r.URL.Host+" /a%20b?q=1 1 " {
				t.Errorf("the server got %q", x)
			}

			if !announced || resp.Trailer.Get("X-Announced") != "yes" || resp.Trailer.Get("X-More") != "too" {
				t.Errorf("announced: %v, trailer %v", announced, resp.Trailer)
			}
		})
	}
}

// readAgain returns what a request sends, "" where that cannot be had again.
func readAgain(r *http.Request) (string, error) {
	if r.GetBody == nil {
		return "", nil
	}

	body, err := r.GetBody()
	if err != nil {
		return "", err
	}

	all, err := io.ReadAll(body)

	return string(all), err
}

// The zone of an address is for this machine alone.
func TestRoundTrip_SaysNoZone(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Host", r.Host) }, 10)
	p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)

	for sent, want := range map[string]string{
		"http://[fe80::2%25eth0]:1": "[fe80::2]:1", "http://[fe80::2%25eth0]": "[fe80::2]", "http://[::1]:1": "[::1]:1",
		"http://a:1": "a:1",
	} {
		resp, err := p.RoundTrip(request(t.Context(), t, http.MethodGet, sent, http.NoBody))
		if err != nil {
			t.Fatal(err)
		}

		if err := resp.Body.Close(); err != nil || resp.Header.Get("X-Host") != want {
			t.Errorf("for %s the server got %q, %v; want %q", sent, resp.Header.Get("X-Host"), err, want)
		}
	}
}

func TestRoundTrip_Head(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5") }, 10)
	p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)

	resp, err := p.RoundTrip(request(t.Context(), t, http.MethodHead, s.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	if n, err := io.Copy(io.Discard, resp.Body); resp.ContentLength != 5 || n != 0 || err != nil {
		t.Errorf("length %d, %d bytes, %v", resp.ContentLength, n, err)
	}
}

// Both directions are open at the same time, and the end of the response ends the
// request.
func TestRoundTrip_BothDirections(t *testing.T) {
	t.Parallel()

	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()

		b := make([]byte, 1)
		for range 3 {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				t.Errorf("server: %v", err)
			}

			_, _ = w.Write(b)
			_ = http.NewResponseController(w).Flush()
		}
	}, 10)
	p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)
	body, send := io.Pipe()

	resp, err := p.RoundTrip(request(t.Context(), t, http.MethodPost, s.URL, body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	got := make([]byte, 1)

	for _, c := range []byte("abc") {
		if _, err := send.Write([]byte{c}); err != nil {
			t.Fatal(err)
		}

		if _, err := io.ReadFull(resp.Body, got); err != nil || got[0] != c {
			t.Fatalf("%q for %q, %v", got, c, err)
		}
	}

	if _, err := resp.Body.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}

	if _, err := send.Write(got); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sending after the end: %v", err)
	}
}

// A request whose stream is over is not read any more, whether or not somebody reads the
// response.
func TestRoundTrip_TheEndOfAStreamEndsItsRequest(t *testing.T) {
	t.Parallel()

	for name, end := range map[string]func(w http.ResponseWriter, s *server){
		"complete": func(http.ResponseWriter, *server) {},
		"reset":    func(http.ResponseWriter, *server) { panic(http.ErrAbortHandler) },
		"lost":     func(_ http.ResponseWriter, s *server) { s.CloseClientConnections() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			over := make(chan struct{})

			var s *server

			s = serve(t, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()

				<-over
				end(w, s)
			}, 10)
			p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)
			body := &quiet{closed: make(chan struct{})}

			resp, err := p.RoundTrip(request(t.Context(), t, http.MethodPost, s.URL, body))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()

			close(over)
			<-body.closed
		})
	}
}

// What breaks a call off reaches both ends.
func TestRoundTrip_BrokenOff(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken")

	for name, c := range map[string]struct {
		body    func(stop context.CancelFunc) io.Reader
		length  int64
		doBreak func(stop context.CancelFunc, resp *http.Response)
		want    func(error) bool
	}{
		"by the caller's context": {
			doBreak: func(stop context.CancelFunc, _ *http.Response) { stop() },
			want:    func(err error) bool { return errors.Is(err, context.Canceled) },
		},
		"by closing": {
			doBreak: func(_ context.CancelFunc, resp *http.Response) { _ = resp.Body.Close() },
			want:    func(err error) bool { return errors.Is(err, http.ErrBodyReadAfterClose) },
		},
		"by the body": {
			body: func(context.CancelFunc) io.Reader { return iotest.ErrReader(broken) },
			want: func(err error) bool { return errors.Is(err, broken) },
		},
		"by a body that is too short": {
			body:   func(context.CancelFunc) io.Reader { return iotest.OneByteReader(strings.NewReader("ab")) },
			length: 3, want: func(err error) bool { return err != nil && strings.Contains(err.Error(), "shorter") },
		},
		"by a body that is too long": {
			body:   func(context.CancelFunc) io.Reader { return iotest.HalfReader(strings.NewReader("abcd")) },
			length: 3, want: func(err error) bool { return err != nil && strings.Contains(err.Error(), "longer") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ended := make(chan struct{})
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)

				_ = http.NewResponseController(w).Flush()

				<-r.Context().Done()
			}, 10)
			p := newPool(t, dialer(s.Listener.Addr().String()), 1, nil)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()

			var body io.Reader
			if c.body != nil {
				body = c.body(stop)
			}

			r := request(ctx, t, http.MethodPost, s.URL, body)
			r.ContentLength = c.length

			resp, err := p.RoundTrip(r)
			if err == nil {
				defer resp.Body.Close()

				if c.doBreak != nil {
					c.doBreak(stop, resp)
				}

				_, err = resp.Body.Read(make([]byte, 1))
			}

			if !c.want(err) {
				t.Errorf("error %v", err)
			}

			<-ended
		})
	}
}

// A server that does not read holds nobody beyond its deadline, is given up in time, and
// what it certainly did not get is known.
func TestRoundTrip_AServerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		p := newPool(t, func(_ context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			near, far := net.Pipe()

			go func() {
				fr := http2.NewFramer(far, far)
				_, _ = io.ReadFull(far, make([]byte, len(http2.ClientPreface)))

				go func() { _ = fr.WriteSettings() }()

				for range 3 { // settings, a window, the acknowledgement
					_, _ = fr.ReadFrame()
				}

				<-stuck

				_ = far.Close()
			}()

			return below(near), nil
		}, 1, nil)

		for range 2 { // the second waits behind the first
			ctx, cancel := context.WithTimeout(t.Context(), bound/2)
			_, err := p.RoundTrip(request(ctx, t, http.MethodGet, "http://server/", nil))

			if cancel(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v", err)
			}
		}

		lost := make(chan error, 1)

		go func() {
			_, err := p.RoundTrip(request(t.Context(), t, http.MethodGet, "http://server/", nil))
			lost <- err
		}()

		// Until that is noticed, although nobody calls in most of the time.
		if err := <-lost; !link.Unprocessed(err) || !link.Lost(err) {
			t.Errorf("a request that was never written: %v", err)
		}

		close(stuck)
	})
}

// What HTTP/2 cannot carry is refused before anything is sent.
func TestRoundTrip_Refuses(t *testing.T) {
	t.Parallel()

	p := newPool(t, func(context.Context, func(net.Conn) net.Conn) (net.Conn, error) {
		t.Error("dialled")

		return nil, errors.New("no")
	}, 1, nil)

	for name, spoil := range map[string]func(r *http.Request){
		"method":  func(r *http.Request) { r.Method = "GET /" },
		"scheme":  func(r *http.Request) { r.URL.Scheme = "file" },
		"host":    func(r *http.Request) { r.Host = "a b" },
		"path":    func(r *http.Request) { r.URL.Opaque = "a b" },
		"query":   func(r *http.Request) { r.URL.RawQuery = "a b" },
		"name":    func(r *http.Request) { r.Header["A:b"] = []string{"c"} },
		"value":   func(r *http.Request) { r.Header["A"] = []string{"b\r\nc: d"} },
		"trailer": func(r *http.Request) { r.Trailer = http.Header{"A": nil} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			closed := &closing{Reader: strings.NewReader("x")}
			r := request(t.Context(), t, http.MethodPost, "http://server/", closed)
			spoil(r)

			if _, err := p.RoundTrip(r); err == nil || link.Unprocessed(err) {
				t.Errorf("error %v", err)
			}

			if !closed.closed {
				t.Error("the body was not closed")
			}
		})
	}
}

type closing struct {
	io.Reader

	closed bool
}

func (c *closing) Close() error {
	c.closed = true

	return nil
}

// quiet is a body of which nothing comes until it is closed.
type quiet struct {
	once   sync.Once
	closed chan struct{}
}

func (q *quiet) Read([]byte) (int, error) {
	<-q.closed

	return 0, io.ErrClosedPipe
}

func (q *quiet) Close() error {
	q.once.Do(func() { close(q.closed) })

	return nil
}
