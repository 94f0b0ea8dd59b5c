package h2_test

import (
	"bytes"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const patience = time.Minute

func config() h2.Config {
	return h2.Config{MaxHeaderBytes: 4 << 10, IdleTimeout: time.Hour, PingInterval: time.Hour, PingTimeout: time.Hour}
}

// frame is a frame that the peer got.
type frame struct {
	http2.FrameHeader

	payload []byte
}

// peer is the server at the other end, played by the test.
type peer struct {
	t      *testing.T
	nc     net.Conn
	fr     *http2.Framer
	frames chan frame
	block  bytes.Buffer
	enc    *hpack.Encoder
	dec    *hpack.Decoder
}

// connect returns a connection and its peer, which has sent its settings.
func connect(t *testing.T, cfg h2.Config, settings ...http2.Setting) (*h2.Conn, *peer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return handshake(t, cfg, client, server, settings...)
}

func handshake(t *testing.T, cfg h2.Config, client, server net.Conn, settings ...http2.Setting) (*h2.Conn, *peer) {
	t.Helper()
	p := &peer{t: t, nc: server, fr: http2.NewFramer(server, server), frames: make(chan frame, 10000), dec: hpack.NewDecoder(4096, nil)}
	p.enc = hpack.NewEncoder(&p.block)
	p.fr.AllowIllegalWrites = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(server, preface); err != nil || string(preface) != http2.ClientPreface {
			t.Errorf("preface %q, %v", preface, err)
			return
		}
		p.read()
	}()
	sent := make(chan error, 1)
	go func() { sent <- p.fr.WriteSettings(settings...) }()
	conn, err := h2.Client(t.Context(), client, nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		_ = server.Close()
		<-done
	})
	p.want(http2.FrameSettings)
	p.want(http2.FrameWindowUpdate)
	p.want(http2.FrameSettings) // the acknowledgement
	return conn, p
}

// read takes frames in by hand: the test wants to see them as they are.
func (p *peer) read() {
	defer close(p.frames)
	for {
		fh, err := http2.ReadFrameHeader(p.nc)
		if err != nil {
			return
		}
		f := frame{FrameHeader: fh, payload: make([]byte, fh.Length)}
		if _, err := io.ReadFull(p.nc, f.payload); err != nil {
			return
		}
		p.frames <- f
	}
}

// want returns the next frame, which has to be of that type.
func (p *peer) want(kind http2.FrameType) frame {
	p.t.Helper()
	select {
	case f, ok := <-p.frames:
		if !ok || f.Type != kind {
			p.t.Fatalf("got frame %v (%v), want %v", f.FrameHeader, ok, kind)
		}
		return f
	case <-time.After(patience):
		p.t.Fatalf("no %v", kind)
		panic("unreachable")
	}
}

// silent fails if a frame comes within a short while.
func (p *peer) silent() {
	p.t.Helper()
	select {
	case f, ok := <-p.frames:
		p.t.Fatalf("got frame %v (%v)", f.FrameHeader, ok)
	case <-time.After(20 * time.Millisecond):
	}
}

// silentAfterData waits until nothing but data came and no more comes.
func (p *peer) silentAfterData() {
	for {
		select {
		case <-p.frames:
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

// fieldsOf decodes a header block.
func (p *peer) fieldsOf(block []byte) []hpack.HeaderField {
	p.t.Helper()
	fields, err := p.dec.DecodeFull(block)
	if err != nil {
		p.t.Fatal(err)
	}
	return fields
}

// headers sends a header block of the fields, given as name and value in turn.
func (p *peer) headers(stream uint32, end bool, fields ...string) {
	p.t.Helper()
	p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: end}))
}

func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return slices.Clone(p.block.Bytes())
}

func (p *peer) data(stream uint32, end bool, data string) {
	p.t.Helper()
	p.must(p.fr.WriteData(stream, end, []byte(data)))
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

var get = h2.Request{
	Fields: []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "example.com"},
		{Name: ":path", Value: "/"},
	},
	End: true,
}

// post is a request whose body comes later, or is body if that is set.
func post(body string) h2.Request {
	r := get
	r.Body, r.End = []byte(body), body != ""
	return r
}

// open opens a stream that is closed at the end of the test.
func open(t *testing.T, c *h2.Conn, r h2.Request) (*h2.Stream, []byte) {
	t.Helper()
	s, rest, err := c.Open(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, rest
}

// body reads a response's body to its end.
func body(s *h2.Stream) (string, error) {
	var all []byte
	for {
		b, end, err := s.Next()
		if err != nil {
			return string(all), err
		}
		if b != nil {
			all = append(all, b.B...)
			b.Release()
		}
		if end {
			return string(all), nil
		}
	}
}

// failure returns the error that a stream ends with.
func failure(s *h2.Stream) error {
	if _, _, err := s.Head(); err != nil {
		return err
	}
	_, err := body(s)
	return err
}

// within runs f and fails the test if it takes too long.
func within[T any](t *testing.T, f func() T) T {
	t.Helper()
	ch := make(chan T, 1)
	go func() { ch <- f() }()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("still waiting")
		panic("unreachable")
	}
}

// stuckConn is a connection whose writes get stuck on demand.
type stuckConn struct {
	net.Conn

	block atomic.Bool
	once  sync.Once
	stop  chan struct{}
}

func (c *stuckConn) Write(b []byte) (int, error) {
	if c.block.Load() {
		<-c.stop
	}
	return c.Conn.Write(b)
}

func (c *stuckConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// release lets a write that is stuck go on, and all that follow.
func (c *stuckConn) release() {
	c.block.Store(false)
	c.once.Do(func() { close(c.stop) })
}
