package h2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

func TestResponse(t *testing.T) {
	t.Parallel()
	for _, gather := range []bool{false, true} {
		t.Run(fmt.Sprintf("gather=%v", gather), func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			request := get
			request.Gather = gather
			s, _ := open(t, c, request)
			head := p.want(http2.FrameHeaders)
			if !head.Flags.Has(http2.FlagHeadersEndStream|http2.FlagHeadersEndHeaders) || head.StreamID != 1 {
				t.Errorf("head %v", head)
			}
			if got := p.fieldsOf(head.payload); fmt.Sprint(got) != fmt.Sprint(get.Fields) {
				t.Errorf("fields %v", got)
			}
			p.headers(1, false, ":status", "103", "link", "x")
			p.headers(1, false, ":status", "200", "content-type", "a/b", "x", "1", "x", "2")
			p.data(1, false, "hello ")
			p.data(1, false, "")
			p.data(1, false, "world")
			p.headers(1, true, "grpc-status", "0")
			status, fields, err := s.Head()
			if status != 200 || err != nil || fmt.Sprint(fields) != fmt.Sprint([]hpack.HeaderField{
				{Name: "content-type", Value: "a/b"}, {Name: "x", Value: "1"}, {Name: "x", Value: "2"},
			}) {
				t.Errorf("status %d, fields %v, %v", status, fields, err)
			}
			if got, err := body(s); got != "hello world" || err != nil {
				t.Errorf("body %q, %v", got, err)
			}
			if got := s.Trailer(); len(got) != 1 || got[0].Name != "grpc-status" {
				t.Errorf("trailer %v", got)
			}
			if c.Load() != 0 {
				t.Errorf("load %d", c.Load())
			}
			s.Close()
			p.silent() // a complete stream needs no reset
		})
	}
}

// TestHeadIsNotHeldUpByHalfAFrame has the beginning of another frame follow.
func TestHeadIsNotHeldUpByHalfAFrame(t *testing.T) {
	t.Parallel()
	tests := map[string][]byte{
		"half a frame head": {0, 0, 10},
		"half a frame":      {0, 0, 10, 0, 0, 0, 0, 0, 1, 'x'},
		"half a block":      {0, 0, 0, 1, 0, 0, 0, 0, 1},
	}
	for name, half := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, _ := open(t, c, get)
			block := p.encode(":status", "200")
			raw := binary.BigEndian.AppendUint32([]byte{0, 0, byte(len(block)), byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders)}, 1)
			raw = append(append(raw, block...), half...)
			if _, err := p.nc.Write(raw); err != nil {
				t.Fatal(err)
			}
			if err := within(t, func() error { _, _, err := s.Head(); return err }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBrokenResponse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script func(p *peer)
		want   func(error) bool
		code   http2.ErrCode // of the reset that the peer gets
	}{
		"no headers":          {script: func(p *peer) { p.data(1, true, "x") }, want: malformed, code: http2.ErrCodeProtocol},
		"no status":           {script: func(p *peer) { p.headers(1, true, "a", "b") }, want: malformed, code: http2.ErrCodeProtocol},
		"bad status":          {script: func(p *peer) { p.headers(1, true, ":status", "2000") }, want: malformed, code: http2.ErrCodeProtocol},
		"status not a number": {script: func(p *peer) { p.headers(1, true, ":status", "abc") }, want: malformed, code: http2.ErrCodeProtocol},
		"switching":           {script: func(p *peer) { p.headers(1, false, ":status", "101") }, want: malformed, code: http2.ErrCodeProtocol},
		"request pseudo":      {script: func(p *peer) { p.headers(1, true, ":status", "200", ":path", "/") }, want: malformed, code: http2.ErrCodeProtocol},
		"interim at end":      {script: func(p *peer) { p.headers(1, true, ":status", "103") }, want: malformed, code: http2.ErrCodeProtocol},
		"endless interim": {script: func(p *peer) {
			for range 9 {
				p.headers(1, false, ":status", "103")
			}
		}, want: malformed, code: http2.ErrCodeProtocol},
		"upper case": {script: func(p *peer) { p.headers(1, true, ":status", "200", "Upper", "x") }, want: malformed, code: http2.ErrCodeProtocol},
		"line break": {script: func(p *peer) { p.headers(1, true, ":status", "200", "a", "x\r\nb: y") }, want: malformed, code: http2.ErrCodeProtocol},
		"large head": {script: func(p *peer) { p.headers(1, true, ":status", "200", "a", strings.Repeat("x", 5<<10)) }, want: malformed, code: http2.ErrCodeProtocol},
		"too short": {script: func(p *peer) {
			p.headers(1, false, ":status", "200", "content-length", "10")
			p.data(1, true, "123456789")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"too long": {script: func(p *peer) {
			p.headers(1, false, ":status", "200", "content-length", "10")
			p.data(1, true, "12345678901")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"two lengths": {script: func(p *peer) {
			p.headers(1, true, ":status", "200", "content-length", "0", "content-length", "1")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"bad length": {script: func(p *peer) { p.headers(1, true, ":status", "200", "content-length", "-1") }, want: malformed, code: http2.ErrCodeProtocol},
		"no content with a body": {script: func(p *peer) {
			p.headers(1, false, ":status", "204")
			p.data(1, true, "x")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"reset content with a body": {script: func(p *peer) {
			p.headers(1, false, ":status", "205")
			p.data(1, false, "x")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"not modified with a body": {script: func(p *peer) {
			p.headers(1, false, ":status", "304")
			p.data(1, true, "x")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"trailer not at end": {script: func(p *peer) {
			p.headers(1, false, ":status", "200")
			p.headers(1, false, "a", "b")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"status in trailer": {script: func(p *peer) {
			p.headers(1, false, ":status", "200")
			p.headers(1, true, ":status", "200")
		}, want: malformed, code: http2.ErrCodeProtocol},
		"window overflow": {script: func(p *peer) { p.must(p.fr.WriteWindowUpdate(1, 1<<31-1)) }, want: malformed, code: http2.ErrCodeFlowControl},
		"reset":           {script: func(p *peer) { p.must(p.fr.WriteRSTStream(1, http2.ErrCodeInternal)) }, want: wasReset},
		"reset without error": {script: func(p *peer) {
			p.headers(1, false, ":status", "200")
			p.must(p.fr.WriteRSTStream(1, http2.ErrCodeNo))
		}, want: wasReset},
		"refused":    {script: func(p *peer) { p.must(p.fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)) }, want: unprocessed},
		"going away": {script: func(p *peer) { p.must(p.fr.WriteGoAway(0, http2.ErrCodeNo, nil)) }, want: unprocessed},
		"hang up":    {script: func(p *peer) { _ = p.nc.Close() }, want: func(err error) bool { return !unprocessed(err) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, _ := open(t, c, post(""))
			p.want(http2.FrameHeaders)
			test.script(p)
			err := within(t, func() error { return failure(s) })
			if err == nil || !test.want(err) {
				t.Errorf("error %v", err)
			}
			if test.code != 0 {
				if f := p.want(http2.FrameRSTStream); http2.ErrCode(binary.BigEndian.Uint32(f.payload)) != test.code {
					t.Errorf("reset with %v", f.payload)
				}
			}
		})
	}
}

func malformed(err error) bool   { return errors.Is(err, h2.ErrMalformed) }
func unprocessed(err error) bool { return errors.Is(err, h2.ErrUnprocessed) }

func wasReset(err error) bool {
	_, is := errors.AsType[*h2.ResetError](err)
	return is
}

func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		script func(p *peer)
		code   http2.ErrCode
	}{
		"push": {script: func(p *peer) {
			p.must(p.fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.encode(":method", "GET"), EndHeaders: true}))
		}, code: http2.ErrCodeProtocol},
		"data on an idle stream":    {script: func(p *peer) { p.data(99, true, "x") }, code: http2.ErrCodeProtocol},
		"data on a server's stream": {script: func(p *peer) { p.data(2, true, "x") }, code: http2.ErrCodeProtocol},
		"window overflow":           {script: func(p *peer) { p.must(p.fr.WriteWindowUpdate(0, 1<<31-1)) }, code: http2.ErrCodeFlowControl},
		"bad setting": {script: func(p *peer) {
			p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}))
		}, code: http2.ErrCodeProtocol},
		"bad compression": {script: func(p *peer) {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, code: http2.ErrCodeCompression},
		"large frame": {script: func(p *peer) { p.data(1, false, strings.Repeat("x", 16<<10+1)) }, code: http2.ErrCodeFrameSize},
		"endless block": {script: func(p *peer) {
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(":status", "200")}))
			for range 1000 {
				if p.fr.WriteContinuation(1, false, p.encode("a", strings.Repeat("x", 10<<10))) != nil {
					return
				}
			}
		}, code: http2.ErrCodeProtocol},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, _ := open(t, c, get)
			p.want(http2.FrameHeaders)
			test.script(p)
			if err := within(t, func() error { return failure(s) }); err == nil {
				t.Error("stream goes on")
			}
			within(t, func() struct{} { return <-c.Done() })
			if c.Usable() {
				t.Error("still usable")
			}
			if _, _, err := c.Open(get); !errors.Is(err, h2.ErrClosed) {
				t.Errorf("open: %v", err)
			}
		})
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	s, rest := open(t, c, post("0123456789abcdef"))
	p.want(http2.FrameHeaders)
	if f := p.want(http2.FrameData); string(f.payload) != "0123456789" || string(rest) != "abcdef" {
		t.Errorf("payload %q, rest %q", f.payload, rest)
	}
	done := make(chan error, 1)
	go func() { done <- s.Write(rest, true) }()
	p.silent()
	p.must(p.fr.WriteWindowUpdate(1, 2))
	if f := p.want(http2.FrameData); string(f.payload) != "ab" || f.Flags.Has(http2.FlagDataEndStream) {
		t.Errorf("frame %v %q", f, f.payload)
	}
	p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100}))
	seen := map[http2.FrameType]frame{}
	for range 2 { // the acknowledgement and the rest, in any order
		f := <-p.frames
		seen[f.Type] = f
	}
	if f := seen[http2.FrameData]; string(f.payload) != "cdef" || !f.Flags.Has(http2.FlagDataEndStream) {
		t.Errorf("frames %v", seen)
	}
	if err := within(t, func() error { return <-done }); err != nil {
		t.Error(err)
	}
}

// TestConnectionWindowIsShared lets two uploads take turns when the server gives
// the connection room for one frame at a time.
func TestConnectionWindowIsShared(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	const each = 100 << 10
	done := make(chan error, 2)
	for range 2 {
		s, rest := open(t, c, post(strings.Repeat("x", each)))
		go func() { done <- s.Write(rest, true) }()
	}
	got := map[uint32]int{}
	for ended := 0; ended < 2; {
		f := <-p.frames
		if f.Type != http2.FrameData {
			continue
		}
		got[f.StreamID] += len(f.payload)
		p.must(p.fr.WriteWindowUpdate(0, max(1, uint32(len(f.payload)))))
		if f.Flags.Has(http2.FlagDataEndStream) {
			ended++
		}
	}
	if got[1] != each || got[3] != each {
		t.Errorf("got %v", got)
	}
	for range 2 {
		if err := within(t, func() error { return <-done }); err != nil {
			t.Error(err)
		}
	}
}

func TestBlockedUploadEnds(t *testing.T) {
	t.Parallel()
	tests := map[string]func(c *h2.Conn, s *h2.Stream, p *peer){
		"canceled":          func(_ *h2.Conn, s *h2.Stream, _ *peer) { s.Cancel(errors.New("enough")) },
		"reset":             func(_ *h2.Conn, _ *h2.Stream, p *peer) { p.must(p.fr.WriteRSTStream(1, http2.ErrCodeNo)) },
		"response complete": func(_ *h2.Conn, _ *h2.Stream, p *peer) { p.headers(1, true, ":status", "200") },
		"connection closed": func(c *h2.Conn, _ *h2.Stream, _ *peer) { c.Close() },
		"hang up":           func(_ *h2.Conn, _ *h2.Stream, p *peer) { _ = p.nc.Close() },
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, rest := open(t, c, post(strings.Repeat("x", 100<<10)))
			done := make(chan error, 1)
			go func() { done <- s.Write(rest, true) }()
			p.want(http2.FrameHeaders)
			end(c, s, p)
			if err := within(t, func() error { return <-done }); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestCancelAndClose(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, post(""))
	p.want(http2.FrameHeaders)
	enough := errors.New("enough")
	go s.Cancel(enough)
	if err := within(t, func() error { return failure(s) }); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
	if f := p.want(http2.FrameRSTStream); http2.ErrCode(binary.BigEndian.Uint32(f.payload)) != http2.ErrCodeCancel {
		t.Errorf("reset with %v", f.payload)
	}
	p.headers(1, false, ":status", "200") // what was under way does no harm
	p.data(1, true, "late")
	s.Close()
	other, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	p.headers(3, true, ":status", "204")
	if status, _, err := other.Head(); status != 204 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestWindowIsGivenBack(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	p.headers(1, false, ":status", "200")
	const rounds = 64
	total := make(chan int, 1)
	go func() {
		got, _ := body(s)
		total <- len(got)
	}()
	window, sent := 32<<10, 0
	for sent < rounds*16<<10 {
		if window < 16<<10 {
			f := p.want(http2.FrameWindowUpdate)
			if f.StreamID == 1 {
				window += int(binary.BigEndian.Uint32(f.payload))
			}
			continue
		}
		p.data(1, false, strings.Repeat("x", 16<<10))
		window -= 16 << 10
		sent += 16 << 10
	}
	p.data(1, true, "")
	if got := within(t, func() int { return <-total }); got != sent {
		t.Errorf("%d bytes of %d", got, sent)
	}
}

func TestWindowOverrun(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	p.headers(1, false, ":status", "200")
	for range 3 { // nobody reads, so the window is the one that it was
		p.data(1, false, strings.Repeat("x", 16<<10))
	}
	if f := p.want(http2.FrameRSTStream); http2.ErrCode(binary.BigEndian.Uint32(f.payload)) != http2.ErrCodeFlowControl {
		t.Errorf("reset with %v", f.payload)
	}
	if got, err := body(s); !malformed(err) || len(got) != 32<<10 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	s, _ := open(t, c, get)
	if _, _, err := c.Open(get); !errors.Is(err, h2.ErrFull) || !c.Full() {
		t.Errorf("open: %v", err)
	}
	p.want(http2.FrameHeaders)
	p.headers(1, true, ":status", "200")
	if _, _, err := s.Head(); err != nil {
		t.Fatal(err)
	}
	open(t, c, get)
}

func TestLargeRequestHead(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	request := get
	request.Fields = append(request.Fields[:4:4], hpack.HeaderField{Name: "a", Value: strings.Repeat("~", 40<<10)})
	open(t, c, request)
	f := p.want(http2.FrameHeaders)
	block := bytes.Clone(f.payload)
	for !f.Flags.Has(http2.FlagHeadersEndHeaders) {
		f = p.want(http2.FrameContinuation)
		block = append(block, f.payload...)
	}
	if got := p.fieldsOf(block); len(got) != 5 || len(got[4].Value) != 40<<10 {
		t.Errorf("%d fields", len(got))
	}
}

// TestWindowForAll opens the connection's window once, for everybody who waits.
func TestWindowForAll(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	const each, streams = 100 << 10, 8
	done := make(chan error, streams)
	for range streams {
		s, rest := open(t, c, post(strings.Repeat("x", each)))
		go func() { done <- s.Write(rest, true) }()
	}
	p.silentAfterData()
	p.must(p.fr.WriteWindowUpdate(0, 1<<30))
	for range streams {
		if err := within(t, func() error { return <-done }); err != nil {
			t.Error(err)
		}
	}
}

func TestCanceledStreamIsTheLast(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, post(""))
	p.want(http2.FrameHeaders)
	p.must(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
	p.must(p.fr.WritePing(false, [8]byte{}))
	p.want(http2.FramePing) // so the other was read
	s.Close()
	within(t, func() struct{} { return <-c.Done() })
}

func TestServerGoesAway(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	first, _ := open(t, c, get)
	second, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	p.must(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
	if err := within(t, func() error { return failure(second) }); !unprocessed(err) {
		t.Errorf("second: %v", err)
	}
	if c.Usable() {
		t.Error("still usable")
	}
	p.headers(1, false, ":status", "200")
	p.data(1, true, "done")
	if got, err := body(first); got != "done" || err != nil {
		t.Errorf("first: %q, %v", got, err)
	}
	within(t, func() struct{} { return <-c.Done() }) // nothing is left to wait for
}
