package h2_test

import (
	"encoding/binary"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// A farewell is said once, with an id that servers bear: one on nghttp2 ends the connection where it is odd. That the server answers
// with its own, as net/http and Node do, is told to nobody, that it is angry is.
func TestFarewell(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		said := make(chan *h2.GoAwayError, 100)
		cfg := config()
		cfg.Away = func(e *h2.GoAwayError) { said <- e }
		c, p := pipe(t, cfg)
		s, _ := open(t, c, get)
		p.want(http2.FrameHeaders)
		c.Farewell()
		c.Farewell()
		f := p.want(http2.FrameGoAway)
		if last, code := binary.BigEndian.Uint32(f.payload), binary.BigEndian.Uint32(f.payload[4:]); last != 1<<31-2 || code != 0 {
			t.Errorf("last stream %d, code %d", last, code)
		}
		p.must(p.fr.WriteGoAway(1, http2.ErrCodeNo, nil))
		p.headers(1, false, ":status", "200")
		p.must(p.fr.WritePing(false, [8]byte{}))
		p.want(http2.FramePing) // and no second farewell before it
		if len(said) != 0 || c.Usable() {
			t.Errorf("said %d times, usable %v", len(said), c.Usable())
		}
		p.must(p.fr.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, nil))
		if e := <-said; e.Code != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("said %v", e)
		}
		p.data(1, true, "done")
		if got, err := body(s); got != "done" || err != nil {
			t.Errorf("the stream: %q, %v", got, err)
		}
	})
}
