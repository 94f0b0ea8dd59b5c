package edge_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/edge"
)

type server struct {
	addr   string
	edge   *edge.Listener
	client *tls.Config

	gone    atomic.Bool // who proves to be somebody
	cut     atomic.Pointer[string]
	refused atomic.Int32
}

// start serves echoes behind an edge.
func start(t *testing.T, edit func(*edge.Config)) *server {
	t.Helper()
	certs := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	certs.Close()
	s := &server{client: certs.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	s.client.NextProtos, s.client.ServerName = []string{"h2"}, "example.com"
	cfg := edge.Config{
		TLS:              &tls.Config{Certificates: certs.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13},
		HandshakeTimeout: 10 * time.Second, MaxConnections: 100, MaxPerAddress: 50, Silence: 50 * time.Millisecond,
		Key:     func(a net.Addr) string { h, _, _ := net.SplitHostPort(a.String()); return h },
		CutOff:  func(_ *edge.Conn, reason string) { s.cut.Store(&reason) },
		Refused: func(net.Addr, error) { s.refused.Add(1) },
	}
	if edit != nil {
		edit(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr, s.edge = l.Addr().String(), edge.Listen(l, cfg)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols: protocols,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := r.Context().Value(connKey{}).(*edge.Conn)
			if c == nil || c.TLS() == nil || r.URL.Path == "/wait" {
				<-r.Context().Done()
				return
			}
			if r.URL.Path == "/refused" {
				w.WriteHeader(http.StatusUnauthorized)
				c.Refused()
				return
			}
			defer c.Served(false)
			if r.URL.Path == "/prove" {
				_ = c.Prove(edge.Holder{Name: "one", Most: 2, Ended: s.gone.Load})
			}
			_, _ = io.Copy(w, r.Body)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.edge) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
		s.edge.End()
		if n := s.edge.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
	return s
}

type connKey struct{}

func (s *server) http(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: s.client.Clone(), ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (s *server) get(ctx context.Context, c *http.Client, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err == nil && string(got) != body {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

// attacker speaks frames.
type attacker struct {
	*http2.Framer

	conn *tls.Conn
	head []byte
}

func (s *server) attack(t *testing.T, path string) *attacker {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr, s.client.Clone())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	a := &attacker{Framer: http2.NewFramer(conn, conn), conn: conn}
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err = errors.Join(err, a.WriteSettings()); err != nil {
		t.Fatal(err)
	}
	a.block(path)
	return a
}

// block makes the head of the requests.
func (a *attacker) block(path string) {
	var b strings.Builder
	enc := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "example.com"}, {":path", path}} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	a.head = []byte(b.String())
}

func (a *attacker) open(id uint32, end bool) error {
	return a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.head, EndHeaders: true, EndStream: end})
}

// goodbye reads until the connection ends and returns the GOAWAY before that.
func (a *attacker) goodbye() (last *http2.GoAwayFrame) {
	_ = a.conn.SetReadDeadline(time.Now().Add(5 * time.Minute)) // what waits in the sockets is read first, and the machine may be busy
	for {
		f, err := a.ReadFrame()
		if err != nil {
			return last
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			c := *g
			last = &c
		}
	}
}

const most = 50_000

// Each flood is cut off with a reason, long before it has sent all it wants to.
func TestConn_CutsOffFloods(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]func(a *attacker, i uint32) error{
		"rapid reset": func(a *attacker, i uint32) error {
			if err := a.open(2*i+1, true); err != nil {
				return err
			}
			return a.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		},
		"refused requests": func(a *attacker, i uint32) error { return a.open(2*i+1, true) },
		"settings":         func(a *attacker, _ uint32) error { return a.WriteSettings() },
		"ping":             func(a *attacker, _ uint32) error { return a.WritePing(false, [8]byte{}) },
		"priority": func(a *attacker, i uint32) error {
			return a.WritePriority(2*i+1, http2.PriorityParam{StreamDep: 0, Weight: 3})
		},
		"window updates": func(a *attacker, _ uint32) error { return a.WriteWindowUpdate(0, 1) },
		"unknown frames": func(a *attacker, _ uint32) error { return a.WriteRawFrame(0xee, 0, 0, nil) },
		"empty data": func(a *attacker, i uint32) error {
			if i == 0 {
				return a.open(1, false)
			}
			return a.WriteData(1, false, nil)
		},
		"padding alone": func(a *attacker, i uint32) error {
			if i == 0 {
				return a.open(1, false)
			}
			return a.WriteDataPadded(1, false, nil, []byte{0, 0, 0})
		},
		"headers": func(a *attacker, i uint32) error {
			big := append([]byte(nil), a.head...)
			for range 300 {
				big = append(big, 0x00, 0x01, 'a', 0x7f, 0x00)
				big = append(big, make([]byte, 127)...)
			}
			return a.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: big[:min(len(big), 16<<10)], EndHeaders: true, EndStream: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			path := "/wait"
			if name == "refused requests" {
				path = "/refused"
			}
			a := s.attack(t, path)
			bye := make(chan *http2.GoAwayFrame, 1)
			go func() { bye <- a.goodbye() }()
			sent := 0
			for i := range uint32(most) {
				if flood(a, i) != nil {
					break
				}
				sent++
			}
			g := <-bye
			if name == "headers" && g != nil && g.ErrCode != http2.ErrCodeEnhanceYourCalm {
				return // the server itself may be faster to refuse a block that it cannot read
			}
			if reason := s.cut.Load(); reason == nil {
				t.Errorf("after %d frames: the log was told nothing, the peer %v", sent, g)
			}
			// An honest client on a connection of its own notices nothing.
			if err := s.get(t.Context(), s.http(t), "/", "hello"); err != nil {
				t.Error(err)
			}
		})
	}
}

// What honest peers do costs them nothing.
func TestConn_LeavesHonestPeersAlone(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(t *testing.T, s *server){
		"two thousand calls": func(t *testing.T, s *server) {
			c := s.http(t)
			parallel(t, 10, 200, func() error { return s.get(t.Context(), c, "/", "x") })
		},
		"a thousand cancelled calls": func(t *testing.T, s *server) {
			c := s.http(t)
			if err := s.get(t.Context(), c, "/", "before"); err != nil { // one connection for all
				t.Fatal(err)
			}
			parallel(t, 10, 100, func() error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				sent := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }})
				if err := s.get(sent, c, "/wait", ""); !errors.Is(err, context.Canceled) {
					return fmt.Errorf("not cancelled: %w", err)
				}
				return nil
			})
			if err := s.get(t.Context(), c, "/", "after"); err != nil {
				t.Error(err)
			}
		},
		"a download with a PING and two WINDOW_UPDATEs a frame": func(t *testing.T, s *server) {
			c := s.http(t)
			if err := s.get(t.Context(), c, "/", strings.Repeat("x", 4<<20)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			use(t, s)
			if reason := s.cut.Load(); reason != nil {
				t.Errorf("cut off: %s", *reason)
			}
		})
	}
}

func parallel(t *testing.T, workers, each int, do func() error) {
	t.Helper()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := do(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Idle connections of one address do not keep others out, and those that proved who
// they are do not count.
func TestListener_SharesOfAnAddress(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *edge.Config) { c.MaxPerAddress = 4 })
	proven := s.http(t)
	if err := s.get(t.Context(), proven, "/prove", "x"); err != nil {
		t.Fatal(err)
	}
	idle := make([]net.Conn, 0, 20)
	for range 20 { // none of them says a word
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	t.Cleanup(func() {
		for _, c := range idle {
			_ = c.Close()
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for s.get(t.Context(), s.http(t), "/", "newcomer") != nil {
		if time.Now().After(deadline) {
			t.Fatal("idle connections keep a newcomer out")
		}
	}
	if err := s.get(t.Context(), proven, "/", "still"); err != nil {
		t.Error("who proved to be somebody was displaced:", err)
	}
	if n := s.edge.Len(); n > 6 {
		t.Errorf("%d connections", n)
	}
}

// A full listener waits where all of its connections are of those who proved who they are.
func TestListener_Full(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *edge.Config) { c.MaxConnections, c.Silence = 2, time.Minute })
	clients := make([]*http.Client, 2) // as many as the holder may have
	for i := range clients {
		clients[i] = s.http(t)
		if err := s.get(t.Context(), clients[i], "/prove", "x"); err != nil {
			t.Fatal(err)
		}
	}
	third, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = third.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if err := tls.Client(third, s.client.Clone()).HandshakeContext(t.Context()); err == nil {
		t.Error("a third connection was taken")
	}
	_ = third.Close()
	clients[0].CloseIdleConnections()
	if err := s.get(t.Context(), s.http(t), "/", "fourth"); err != nil {
		t.Error("after one ended:", err)
	}
}

// What does not agree on TLS and HTTP/2 in time is refused, and holds no place.
func TestListener_RefusesWhatIsNoHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *edge.Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	old := s.client.Clone()
	old.NextProtos = nil
	if conn, err := tls.Dial("tcp", s.addr, old); err == nil {
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, io.EOF) {
			t.Log(err)
		}
		_ = conn.Close()
	}
	silent, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the host spoke first")
	}
	deadline := time.Now().Add(20 * time.Second)
	for (s.edge.Len() > 0 || s.refused.Load() < 2) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n, refused := s.edge.Len(), s.refused.Load(); n != 0 || refused != 2 {
		t.Errorf("%d connections, %d refusals", n, refused)
	}
}

// Who proved to be somebody has no more than his share, and none that outlives him.
func TestAudit_OWN10_AHolderTakesNoMoreThanItsShare(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *edge.Config) { c.MaxConnections, c.MaxPerAddress, c.Silence = 4, 4, time.Second })
	kept := s.http(t)
	for i := range 4 { // the holder of "one" may have two
		c := kept
		if i > 0 {
			c = s.http(t)
		}
		if err := s.get(t.Context(), c, "/prove", "x"); err != nil {
			t.Fatal(err)
		}
	}
	newcomer := s.http(t)
	deadline := time.Now().Add(20 * time.Second)
	for s.getSoon(t, newcomer, "/") != nil {
		if time.Now().After(deadline) {
			t.Fatal("one holder has all connections")
		}
	}
	if err := s.get(t.Context(), kept, "/", "still"); err != nil {
		t.Error("what the holder may have was taken:", err)
	}
	s.gone.Store(true)
	late := make([]*http.Client, 4)
	for i := range late { // all of them find room where those who are gone had it
		late[i] = s.http(t)
		for s.getSoon(t, late[i], "/") != nil {
			if time.Now().After(deadline) {
				t.Fatal("who is gone still has connections")
			}
		}
	}
}

// getSoon is get that does not wait for room for long.
func (s *server) getSoon(t *testing.T, c *http.Client, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	return s.get(ctx, c, path, "x")
}

// scarce is a listener that once has no descriptors.
type scarce struct {
	net.Listener

	times atomic.Int32
}

// Accept implements net.Listener.
func (s *scarce) Accept() (net.Conn, error) {
	if s.times.Add(1) == 1 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return s.Listener.Accept()
}

func TestListener_AMomentWithoutDescriptorsPasses(t *testing.T) {
	t.Parallel()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := edge.Listen(&scarce{Listener: inner}, edge.Config{
		MaxConnections: 1, MaxPerAddress: 1, PerSecond: 10, Burst: 10, HandshakeTimeout: time.Minute, Silence: time.Minute,
		Key: func(a net.Addr) string { return a.String() },
	})
	t.Cleanup(l.End)
	c, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if served, err := l.Accept(); err != nil {
		t.Errorf("accept: %v", err)
	} else {
		_ = served.Close()
	}
}
