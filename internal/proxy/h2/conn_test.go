package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

func TestPing(t *testing.T) {
	t.Parallel()
	_, p := connect(t, config())
	p.must(p.fr.WritePing(false, [8]byte{1, 2, 3}))
	if f := p.want(http2.FramePing); !f.Flags.Has(http2.FlagPingAck) || !bytes.Equal(f.payload, []byte{1, 2, 3, 0, 0, 0, 0, 0}) {
		t.Errorf("answer %v %v", f, f.payload)
	}
}

// pipe is connect over a pipe, for tests in a bubble of time.
func pipe(t *testing.T, cfg h2.Config, settings ...http2.Setting) (*h2.Conn, *peer) {
	t.Helper()
	client, server := net.Pipe()
	return handshake(t, cfg, client, server, settings...)
}

func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.PingInterval, cfg.PingTimeout = time.Minute, 20*time.Second
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		begun := time.Now()
		if err := failure(s); !errors.Is(err, h2.ErrPing) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begun); took < cfg.PingInterval+cfg.PingTimeout || took > 2*cfg.PingInterval {
			t.Errorf("took %v", took)
		}
		p.want(http2.FramePing)
	})
}

func TestServerThatAnswersPingsIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.PingInterval, cfg.PingTimeout = time.Minute, 20*time.Second
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		for range 10 {
			f := <-p.frames
			if f.Type != http2.FramePing {
				t.Fatalf("frame %v", f)
			}
			p.must(p.fr.WritePing(true, [8]byte(f.payload)))
		}
		p.headers(1, true, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Error(err)
		}
	})
}

func TestUnusedConnectionIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.IdleTimeout = time.Minute
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		time.Sleep(10 * cfg.IdleTimeout) // a stream keeps it open
		if !c.Usable() {
			t.Fatal("closed under a stream")
		}
		p.headers(1, true, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Error(err)
		}
		begun := time.Now()
		<-c.Done()
		if took := time.Since(begun); took < cfg.IdleTimeout/2 || took > 2*cfg.IdleTimeout {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestAudit_H47_PingFlood has a server ask and never read.
func TestAudit_H47_PingFlood(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	stuck := &stuckConn{Conn: client, stop: make(chan struct{})}
	c, p := handshake(t, config(), stuck, server)
	s, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	stuck.block.Store(true)
	go func() {
		for range 200_000 {
			if p.fr.WritePing(false, [8]byte{}) != nil {
				return
			}
		}
	}()
	if err := within(t, func() error { return failure(s) }); err == nil {
		t.Error("stream goes on")
	}
	within(t, func() struct{} { return <-c.Done() })
}

func TestHandshakeFails(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer string
		want   error
	}{
		"another protocol": {answer: "HTTP/1.1 400 Bad Request\r\n\r\n" + strings.Repeat(" ", 20<<10)},
		"acknowledgement":  {answer: "\x00\x00\x00\x04\x01\x00\x00\x00\x00", want: http2.ConnectionError(http2.ErrCodeProtocol)},
		"another frame":    {answer: "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678", want: http2.ConnectionError(http2.ErrCodeProtocol)},
		"nothing":          {answer: "", want: context.DeadlineExceeded},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer server.Close()
				go func() { _, _ = io.Copy(io.Discard, server) }()
				go func() { _, _ = io.WriteString(server, test.answer) }()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				c, err := h2.Client(ctx, client, nil, config())
				if err == nil {
					c.Close()
					t.Fatal("no error")
				}
				if test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("error %v", err)
				}
				if _, err := client.Write([]byte("x")); err == nil {
					t.Error("connection is left open")
				}
			})
		})
	}
}

func TestCloseTwice(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	c.Close()
	p.want(http2.FrameGoAway)
	if err := failure(s); !errors.Is(err, h2.ErrClosed) {
		t.Errorf("stream: %v", err)
	}
	c.Close()
}

// FuzzServer feeds a connection whatever a server might send: its streams end and
// its goroutines too.
func FuzzServer(f *testing.F) {
	var seed bytes.Buffer
	fr := http2.NewFramer(&seed, nil)
	_ = fr.WriteData(1, true, []byte("x"))
	_ = fr.WriteRSTStream(1, http2.ErrCodeNo)
	_ = fr.WriteGoAway(1, http2.ErrCodeNo, nil)
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = fr.WriteWindowUpdate(0, 1)
	f.Add(seed.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		go func() {
			_ = http2.NewFramer(server, nil).WriteSettings()
			_, _ = server.Write(raw)
			_ = server.Close()
		}()
		c, err := h2.Client(t.Context(), client, nil, config())
		if err != nil {
			return
		}
		defer c.Close()
		s, _, err := c.Open(post("hello"))
		if err != nil {
			return
		}
		defer s.Close()
		if within(t, func() error { return failure(s) }) == nil && !bytes.Contains(raw, []byte{1}) {
			t.Error("a response from nothing")
		}
	})
}
