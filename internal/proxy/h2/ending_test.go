package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// script writes frames that go out in one write.
type script struct {
	*http2.Framer

	raw   bytes.Buffer
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newScript() *script {
	s := &script{}
	s.Framer = http2.NewFramer(&s.raw, nil)
	s.AllowIllegalWrites = true
	s.enc = hpack.NewEncoder(&s.block)
	return s
}

func (s *script) headers(stream uint32, end bool, fields ...string) {
	s.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = s.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: s.block.Bytes(), EndHeaders: true, EndStream: end})
}

// TestAudit_USE01_TheLastFrameWins ends a stream and has more follow in the same
// write, on a connection that is going away and on one that is not.
func TestAudit_USE01_TheLastFrameWins(t *testing.T) {
	t.Parallel()
	tails := map[string]func(s *script){
		"nothing":               func(*script) {},
		"reset without error":   func(s *script) { _ = s.WriteRSTStream(1, http2.ErrCodeNo) },
		"reset with an error":   func(s *script) { _ = s.WriteRSTStream(1, http2.ErrCodeInternal) },
		"going away":            func(s *script) { _ = s.WriteGoAway(1, http2.ErrCodeNo, nil) },
		"going away in anger":   func(s *script) { _ = s.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("x")) },
		"an idle stream's data": func(s *script) { _ = s.WriteData(99, true, nil) },
		"a push":                func(s *script) { _ = s.WriteRawFrame(http2.FramePushPromise, 0, 1, []byte("xxxx")) },
		"an endless frame":      func(s *script) { s.raw.WriteString("\xff\xff\xff\x00\x00\x00\x00\x00\x01") },
		"unreadable headers":    func(s *script) { _ = s.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 1, []byte{9, 0}) },
		"half a frame":          func(s *script) { s.raw.WriteString("\x00\x00\x09\x00") },
		"bad compression": func(s *script) {
			_ = s.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, []byte("\xff\xff\xff\xff\xff\xff"))
		},
	}
	for name, tail := range tails {
		for i := range 8 {
			gather, draining, uploading := i&1 > 0, i&2 > 0, i&4 > 0
			t.Run(fmt.Sprintf("%s/gather=%v,draining=%v,uploading=%v", name, gather, draining, uploading), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c, p := pipe(t, config())
					request := get
					request.End, request.Gather = !uploading, gather
					s, _ := open(t, c, request)
					p.want(http2.FrameHeaders)
					if draining {
						p.must(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
					}
					seen := make(chan string, 1)
					go func() { seen <- everything(s) }()
					synctest.Wait() // the reader waits
					last := newScript()
					last.headers(1, false, ":status", "200")
					_ = last.WriteData(1, false, []byte("hello"))
					last.headers(1, true, "grpc-status", "0")
					tail(last)
					_, _ = p.nc.Write(last.raw.Bytes())
					_ = p.nc.Close()
					if got := <-seen; got != "200 hello 1" {
						t.Error(got)
					}
				})
			})
		}
	}
}

// everything says what there is of a response.
func everything(s *h2.Stream) string {
	status, _, err := s.Head()
	if err != nil {
		return err.Error()
	}
	got, err := body(s)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(status, " ", got, " ", len(s.Trailer()))
}

// TestAudit_USE01_NobodyWaitsOnALostConnection loses the connection under streams
// at every stage.
func TestAudit_USE01_NobodyWaitsOnALostConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		var streams []*h2.Stream
		for i := range 4 {
			request := get
			request.Gather = i%2 == 1
			s, _ := open(t, c, request)
			p.want(http2.FrameHeaders)
			streams = append(streams, s)
		}
		blocked, rest := open(t, c, post(strings.Repeat("x", 100<<10)))
		wrote := make(chan error, 1)
		go func() { wrote <- blocked.Write(rest, true) }()
		last := newScript()
		last.headers(3, false, ":status", "200")
		last.headers(5, false, ":status", "200")
		_ = last.WriteData(5, false, []byte("hello"))
		last.headers(7, false, ":status", "200")
		_ = last.WriteData(7, false, []byte("hello"))
		_, _ = p.nc.Write(last.raw.Bytes())
		_ = p.nc.Close()
		for i, s := range append(streams, blocked) {
			if err := failure(s); !errors.Is(err, h2.ErrLost) {
				t.Errorf("stream %d: %v", i, err)
			}
		}
		if err := <-wrote; err == nil {
			t.Error("write succeeds")
		}
	})
}

// TestAudit_USE01_WhatCameBeforeIsDelivered gives the reader the head and the part
// of a body that came before the connection broke.
func TestAudit_USE01_WhatCameBeforeIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		last := newScript()
		last.headers(1, false, ":status", "200")
		_ = last.WriteData(1, false, []byte("hello"))
		_, _ = p.nc.Write(last.raw.Bytes())
		_ = p.nc.Close()
		<-c.Done()
		if status, _, err := s.Head(); status != 200 || err != nil {
			t.Fatalf("status %d, %v", status, err)
		}
		if got, err := body(s); got != "hello" || !errors.Is(err, h2.ErrLost) {
			t.Errorf("body %q, %v", got, err)
		}
	})
}

// TestAudit_USE11_WhatWasNotWrittenIsKnown breaks a connection with one request
// being written and another waiting behind it.
func TestAudit_USE11_WhatWasNotWrittenIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		stuck := &stuckConn{Conn: client, stop: make(chan struct{})}
		c, p := handshake(t, config(), stuck, server)
		stuck.block.Store(true)
		opened := make(chan *h2.Stream, 1)
		go func() {
			s, _, _ := c.Open(get)
			opened <- s
		}()
		synctest.Wait()
		behind, _ := open(t, c, get)
		_ = p.nc.Close()
		if err := failure(behind); !unprocessed(err) || !errors.Is(err, h2.ErrLost) {
			t.Errorf("not written: %v", err)
		}
		under := <-opened
		defer under.Close()
		if err := failure(under); unprocessed(err) || !errors.Is(err, h2.ErrLost) {
			t.Errorf("perhaps written: %v", err)
		}
	})
}

// TestAudit_USE11_AWriteThatNeverBeganSentNothing has the very first byte fail.
func TestAudit_USE11_AWriteThatNeverBeganSentNothing(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d bytes", n), func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			failing := &failingConn{Conn: client, n: n}
			c, _ := handshake(t, config(), failing, server)
			failing.fail.Store(true)
			s, _ := open(t, c, get)
			if err := within(t, func() error { return failure(s) }); unprocessed(err) != (n == 0) || !errors.Is(err, h2.ErrLost) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// failingConn is a connection whose writes fail on demand, after n bytes.
type failingConn struct {
	net.Conn

	fail atomic.Bool
	n    int
}

func (c *failingConn) Write(b []byte) (int, error) {
	if c.fail.Load() {
		return c.n, errors.New("broken")
	}
	return c.Conn.Write(b)
}

// A stream may end while its upload writes to a peer that takes nothing; when that goes on, the
// upload notices, whatever is left of its window.
func TestUploadThatWritesNoticesItsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		stuck := &stuckConn{Conn: client, stop: make(chan struct{})}
		c, p := handshake(t, config(), stuck, server, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		s, _ := open(t, c, post(""))
		p.want(http2.FrameHeaders)
		stuck.block.Store(true)
		done := make(chan error, 1)
		go func() { done <- s.Write(make([]byte, 100), true) }()
		synctest.Wait()
		enough := errors.New("enough")
		s.Cancel(enough)
		stuck.release()
		if err := within(t, func() error { return <-done }); !errors.Is(err, enough) {
			t.Errorf("the upload ended with %v", err)
		}
	})
}

// A response without a body may end with a frame of its own.
func TestResponseWithoutABody(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(p *peer){
		"at once":         func(p *peer) { p.headers(1, true, ":status", "204") },
		"with empty data": func(p *peer) { p.headers(1, false, ":status", "204"); p.data(1, false, ""); p.data(1, true, "") },
		"with a trailer":  func(p *peer) { p.headers(1, false, ":status", "205"); p.headers(1, true, "a", "b") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, _ := open(t, c, get)
			script(p)
			if err := within(t, func() error { return failure(s) }); err != nil {
				t.Error(err)
			}
		})
	}
}

// A head without a body that goes on for long is passed on all the same.
func TestResponseWithoutABodyThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, get)
	p.headers(1, false, ":status", "204")
	if status := within(t, func() int { status, _, _ := s.Head(); return status }); status != 204 {
		t.Errorf("status %d", status)
	}
	p.data(1, true, "")
	if err := within(t, func() error { return failure(s) }); err != nil {
		t.Error(err)
	}
}
