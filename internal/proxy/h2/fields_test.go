package h2_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// TestAudit_USE04_ServersHeaderLimit sends requests around the limit that a server
// states, first in its first settings and then later.
func TestAudit_USE04_ServersHeaderLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config(), http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: 1 << 20})
		limit := func(n uint32) {
			p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: n}))
			p.want(http2.FrameSettings)
		}
		sized := func(size int) h2.Request {
			r := get
			for _, f := range r.Fields {
				size -= int(f.Size())
			}
			r.Fields = append(r.Fields[:4:4], hpack.HeaderField{Name: "a", Value: strings.Repeat("x", size-33)})
			return r
		}
		for i, test := range []struct {
			limit uint32
			size  int
			want  error
		}{{1 << 20, 900 << 10, nil}, {500, 501, h2.ErrTooLarge}, {500, 500, nil}, {500, 32 << 10, h2.ErrTooLarge}, {32 << 10, 32 << 10, nil}} {
			limit(test.limit)
			s, _, err := c.Open(sized(test.size))
			if !errors.Is(err, test.want) {
				t.Fatalf("%d: %v", i, err)
			}
			synctest.Wait()
			if err != nil {
				if len(p.frames) > 0 || c.Load() != 0 {
					t.Errorf("%d: %d frames, load %d", i, len(p.frames), c.Load())
				}
				continue
			}
			f := p.want(http2.FrameHeaders)
			block := f.payload
			for !f.Flags.Has(http2.FlagHeadersEndHeaders) {
				f = p.want(http2.FrameContinuation)
				block = append(block, f.payload...)
			}
			if got := p.fieldsOf(block); len(got) != 5 { // by a decoder that saw nothing else
				t.Errorf("%d: fields %d", i, len(got))
			}
			p.headers(f.StreamID, true, ":status", "200")
			if _, _, err := s.Head(); err != nil {
				t.Error(err)
			}
			s.Close()
		}
	})
}

// TestAudit_USE07_HeaderListsUpToTheLimit has a server send lists around our bound,
// as headers and as trailers, in one frame or many, beside another call.
func TestAudit_USE07_HeaderListsUpToTheLimit(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	for _, trailer := range []bool{false, true} {
		for _, fields := range []int{1, 100} {
			for _, size := range []int{60 << 10, 100 << 10, 1 << 20, 2 << 20} {
				t.Run(fmt.Sprintf("trailer=%v,fields=%d,size=%d", trailer, fields, size), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) { checkListSize(t, limit, size, fields, trailer) })
				})
			}
		}
	}
}

func checkListSize(t *testing.T, limit, size, fields int, trailer bool) {
	t.Helper()
	cfg := config()
	cfg.MaxHeaderBytes = limit
	c, p := pipe(t, cfg)
	other, _ := open(t, c, get)
	s, _ := open(t, c, get)
	p.want(http2.FrameHeaders)
	p.want(http2.FrameHeaders)
	p.headers(1, false, ":status", "200")
	var list []string
	if trailer {
		p.headers(3, false, ":status", "200")
	} else {
		list = append(list, ":status", "200")
	}
	for range fields {
		list = append(list, "details", strings.Repeat("~", size/fields))
	}
	large(p, 3, append(list, "marker", "left in the table")...)
	err := failure(s)
	if size > limit {
		if !errors.Is(err, h2.ErrHeaderBytes) || !malformed(err) || errors.Is(err, h2.ErrLost) {
			t.Errorf("error %v", err)
		}
		if f := p.want(http2.FrameRSTStream); f.StreamID != 3 {
			t.Errorf("reset %v", f)
		}
	} else if err != nil {
		t.Error(err)
	}
	p.headers(1, true, "marker", "left in the table") // an index into the table
	if got, err := body(other); err != nil || got != "" || len(other.Trailer()) != 1 || other.Trailer()[0].Value != "left in the table" {
		t.Errorf("other call: %v, trailer %v", err, other.Trailer())
	}
	if !c.Usable() {
		t.Error("connection is gone")
	}
}

// large sends a header block in as many frames as it takes, the end of the stream.
func large(p *peer, stream uint32, fields ...string) {
	p.t.Helper()
	largeBlock(p, stream, true, fields...)
}

func largeBlock(p *peer, stream uint32, end bool, fields ...string) {
	p.t.Helper()
	const frame = 16 << 10
	block := p.encode(fields...)
	part := block[:min(len(block), frame)]
	block = block[len(part):]
	p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndHeaders: len(block) == 0, EndStream: end}))
	for len(block) > 0 {
		part = block[:min(len(block), frame)]
		block = block[len(part):]
		p.must(p.fr.WriteContinuation(stream, len(block) == 0, part))
	}
}

// TestAudit_USE07_InvalidFieldHarmsItsStreamOnly has one list of a server be
// invalid; what its rest leaves in the table is there for the next.
func TestAudit_USE07_InvalidFieldHarmsItsStreamOnly(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"Upper", "with blank", "", ":path", "line\nbreak"} {
		t.Run(bad, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, config())
				s, _ := open(t, c, get)
				other, _ := open(t, c, get)
				p.headers(1, true, ":status", "200", bad, "x", "marker", "left in the table")
				p.headers(3, true, ":status", "200", "marker", "left in the table")
				if err := failure(s); !malformed(err) {
					t.Errorf("error %v", err)
				}
				if _, fields, err := other.Head(); err != nil || len(fields) != 1 {
					t.Errorf("other call: %v, %v", fields, err)
				}
			})
		})
	}
}

// TestAudit_USE03_NoLimitStatedIsNone opens more streams than any default allows,
// on a server that states no limit, and one that states it later.
func TestAudit_USE03_NoLimitStatedIsNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan struct{}, 100)
		cfg := config()
		cfg.Room = func() { changes <- struct{}{} }
		c, p := pipe(t, cfg)
		for range 1500 {
			open(t, c, get)
		}
		p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10}))
		synctest.Wait()
		if _, _, err := c.Open(get); !errors.Is(err, h2.ErrFull) {
			t.Errorf("open: %v", err)
		}
		if len(changes) > 0 {
			t.Error("room where there is none")
		}
		p.must(p.fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1<<32 - 1}))
		<-changes
		open(t, c, get)
	})
}

// TestAudit_USE01_UnreadableHeadersEndTheConnection has headers with more padding than frame,
// and a continuation of them: no other stream takes it for its own.
func TestAudit_USE01_UnreadableHeadersEndTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		s, _ := open(t, c, get)
		open(t, c, get)
		p.headers(1, false, ":status", "200")
		p.must(p.fr.WriteRawFrame(http2.FrameHeaders, http2.FlagHeadersPadded, 3, []byte{9, 0}))
		_ = p.fr.WriteContinuation(3, true, p.encode("grpc-status", "0"))
		if err := failure(s); !errors.Is(err, h2.ErrLost) || malformed(err) {
			t.Errorf("error %v", err)
		}
		<-c.Done()
	})
}
