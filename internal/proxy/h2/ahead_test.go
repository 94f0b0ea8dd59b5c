package h2_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

const (
	narrow = 32 << 10 // what a server may send at first
	wide   = 256 << 10
	piece  = 16 << 10
	cost   = 2*wide - narrow      // of a stream whose window was enlarged
	pause  = 4 * time.Millisecond // between two of one owner
)

// granted is by how much a stream's window was enlarged.
func granted(t *testing.T, p *peer, stream uint32) int {
	t.Helper()
	f := p.want(http2.FrameWindowUpdate)
	if f.StreamID != stream {
		t.Fatalf("the window of %d was enlarged, not that of %d", f.StreamID, stream)
	}
	return int(binary.BigEndian.Uint32(f.payload))
}

// answering is a stream whose response has begun.
func answering(t *testing.T, c *h2.Conn, p *peer, r h2.Request, more ...string) (s *h2.Stream, id uint32) {
	t.Helper()
	s, _ = open(t, c, r)
	id = p.want(http2.FrameHeaders).StreamID
	p.headers(id, false, append([]string{":status", "200"}, more...)...)
	return s, id
}

// widened is by how much the window of a stream was enlarged whose reader took a piece that has just come.
func widened(t *testing.T, p *peer, stream uint32) (sum int) {
	t.Helper()
	p.data(stream, false, strings.Repeat("x", piece))
	synctest.Wait()
	for len(p.frames) > 0 {
		if f := p.want(http2.FrameWindowUpdate); f.StreamID == stream { // not the connection's
			sum += int(binary.BigEndian.Uint32(f.payload))
		}
	}
	return sum
}

// read reads whatever comes of a response.
func read(s *h2.Stream) { go func() { _, _ = body(s) }() }

// A server may send far ahead on so many streams of an owner as the owner has room for, and
// as soon as one of them has ended on another one.
func TestAhead_IsBoundedByOwner(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, config())
		mine, theirs := get, get
		mine.Ahead, theirs.Ahead = h2.NewAhead(cost), h2.NewAhead(cost)
		begin := func(r h2.Request) (*h2.Stream, uint32) {
			time.Sleep(pause)
			s, id := answering(t, c, p, r)
			read(s)
			return s, id
		}
		first, one := begin(mine)
		if n := widened(t, p, one); n != piece+wide-narrow {
			t.Errorf("the first gets %d", n)
		}
		second, two := begin(mine)
		if n := widened(t, p, two); n != piece {
			t.Errorf("the second gets %d beside the first", n)
		}
		_, other := begin(theirs)
		if n := widened(t, p, other); n != piece+wide-narrow {
			t.Errorf("another owner's gets %d", n)
		}
		first.Close()
		p.want(http2.FrameRSTStream)
		if n := widened(t, p, two); n != piece+wide-narrow {
			t.Errorf("the second gets %d once the first has ended", n)
		}
		second.Close()
		first.Close() // gives back once
		p.want(http2.FrameRSTStream)
		for want, i := piece+wide-narrow, 0; i < 2; want, i = piece, i+1 {
			if _, id := begin(mine); widened(t, p, id) != want {
				t.Errorf("stream %d after them gets something else than %d", i, want)
			}
		}
	})
}

// Of a response that nobody reads no more comes than the little that every server may send ahead, as long as it
// is not gathered, whatever its owner has room for; and of those that are gathered little.
func TestAudit_ATK14_WhatNobodyReadsIsNotSentAhead(t *testing.T) {
	t.Parallel()
	const streams, room = 20, 16
	for name, stated := range map[string][]string{"without a length": nil, "long": {"content-length", "1000000000"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, config())
				r := get
				r.Ahead, r.Gather = h2.NewAhead(room*cost), true
				sum := 0
				for range streams {
					time.Sleep(pause)
					_, id := answering(t, c, p, r, stated...)
					sum += widened(t, p, id)
				}
				most := 0
				if stated != nil {
					most = (room/8 + 1) * (wide - narrow)
				}
				if sum > most || (sum == 0) != (most == 0) {
					t.Errorf("servers may send %d bytes that nobody reads, want %d", sum, most)
				}
			})
		})
	}
}

// A response that is gathered is handed over after a while, also where much of it was there when the time was over
// that the first of it had, and was read later.
func TestAudit_USE10_WhatFollowsIsHandedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const few = 4 << 10
		c, p := pipe(t, config())
		r := get
		r.Gather, r.Ahead = true, h2.NewAhead(100*cost)
		s, id := answering(t, c, p, r)
		p.data(id, false, strings.Repeat("x", few)) // too little
		synctest.Wait()
		p.data(id, false, strings.Repeat("x", piece)) // and now enough to be read
		time.Sleep(time.Second)
		next := func() int {
			b, _, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			defer b.Release()
			if b == nil {
				return 0
			}
			return len(b.B)
		}
		if n := next(); n != few+piece {
			t.Fatalf("%d bytes", n)
		}
		rest := make(chan int)
		go func() {
			n := 0
			for n == 0 {
				n = next()
			}
			rest <- n
		}()
		synctest.Wait()
		p.data(id, false, strings.Repeat("x", few))
		begun := time.Now()
		select {
		case n := <-rest:
			if n != few || time.Since(begun) > time.Second {
				t.Errorf("%d bytes after %v", n, time.Since(begun))
			}
		case <-time.After(time.Minute):
			t.Error("what came later is not handed over")
			s.Close()
			<-rest
		}
	})
}

// What streams of one owner may get beyond the little that all may does not come at one moment.
func TestAudit_ATK14_LongAnswersBeginByAndBy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const streams = 8
		c, p := pipe(t, config())
		r := get
		r.Ahead = h2.NewAhead(100 * cost)
		ids := make([]uint32, streams)
		for i := range ids {
			var s *h2.Stream
			s, ids[i] = answering(t, c, p, r)
			read(s)
		}
		time.Sleep(pause)
		begun := time.Now()
		for len(ids) > 0 {
			before := len(ids)
			ids = slices.DeleteFunc(ids, func(id uint32) bool { return widened(t, p, id) > piece })
			if len(ids) < before-1 {
				t.Fatalf("%d at one moment", before-len(ids))
			}
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begun); took > 2*streams*pause {
			t.Errorf("the last one after %v", took)
		}
	})
}

// Without room a response comes as its reader reads, with and without gathering, and never is
// more of it under way than the least.
func TestAhead_WithoutRoomAReaderGetsEverything(t *testing.T) {
	t.Parallel()
	const pieces = 20
	for _, gather := range []bool{false, true} {
		c, p := connect(t, config())
		r := get
		r.Ahead, r.Gather = h2.NewAhead(0), gather
		s, id := answering(t, c, p, r)
		read := make(chan string, 1)
		go func() {
			got, err := body(s)
			if err != nil {
				t.Error(err)
			}
			read <- got
		}()
		window := narrow
		for range pieces {
			for window < piece {
				if window += granted(t, p, id); window > narrow {
					t.Fatalf("gather %t: the window is %d", gather, window)
				}
			}
			p.data(id, false, strings.Repeat("x", piece))
			window -= piece
		}
		p.data(id, true, "")
		if got := within(t, func() string { return <-read }); len(got) != pieces*piece {
			t.Errorf("gather %t: %d bytes", gather, len(got))
		}
	}
}

// What is being passed on is not sent ahead of, where there is no room.
func TestAhead_WhatIsPassedOnCounts(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	r := get
	r.Ahead = h2.NewAhead(0)
	s, id := answering(t, c, p, r)
	for range narrow / piece {
		p.data(id, false, strings.Repeat("x", piece))
	}
	for got := 0; got < narrow; {
		b, _, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		got += len(b.B)
		if len(b.B) == narrow {
			p.silent()
		}
		b.Release()
	}
	read := make(chan error, 1)
	go func() {
		_, err := body(s)
		read <- err
	}()
	granted(t, p, id) // once its reader asks for more
	p.data(id, true, "")
	if err := within(t, func() error { return <-read }); err != nil {
		t.Error(err)
	}
}

// A server that sends more than it may is told so, whatever its stream's window is.
func TestAhead_MoreThanTheWindowIsRefused(t *testing.T) {
	t.Parallel()
	for room, most := range map[int64]int{0: narrow, cost: wide} {
		c, p := connect(t, config())
		r := get
		r.Ahead, r.Gather = h2.NewAhead(room), true // which is read when it is there
		s, id := answering(t, c, p, r, "content-length", "1000000")
		for range most/piece + 1 {
			p.data(id, false, strings.Repeat("x", piece))
		}
		if most == wide {
			granted(t, p, id)
		}
		if f := p.want(http2.FrameRSTStream); http2.ErrCode(binary.BigEndian.Uint32(f.payload)) != http2.ErrCodeFlowControl {
			t.Errorf("%d: %v", room, f.payload)
		}
		if err := failure(s); !errors.Is(err, h2.ErrMalformed) {
			t.Errorf("%d: %v", room, err)
		}
	}
}

// A response that fits, or is about to end, enlarges no window.
func TestAhead_ShortResponsesCostNothing(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	r := get
	r.Gather = true
	s, id := answering(t, c, p, r, "content-length", "24576")
	var both bytes.Buffer // in one piece: a response that comes slowly is handed over before it is complete
	fr := http2.NewFramer(&both, nil)
	p.must(fr.WriteData(id, false, []byte(strings.Repeat("x", piece))))
	p.must(fr.WriteData(id, true, []byte(strings.Repeat("x", piece/2))))
	_, err := p.nc.Write(both.Bytes())
	p.must(err)
	if got, err := body(s); err != nil || len(got) != piece+piece/2 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s, id = answering(t, c, p, r)
	p.data(id, true, strings.Repeat("x", piece))
	if got, err := body(s); err != nil || len(got) != piece {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	p.silent()
}

// Who waits for more before it asks for it has read what there was: the server may send as much again.
func TestBody_AwaitGivesBackTheWindow(t *testing.T) {
	t.Parallel()
	c, p := connect(t, config())
	r := get
	r.Ahead = h2.NewAhead(0)
	s, id := answering(t, c, p, r)
	b := h2.NewBody(s, func(err error) error { return err })
	for round := range 2 {
		p.data(id, false, strings.Repeat("x", narrow/2))
		b.Await()
		for n, room := 0, make([]byte, narrow/2); n < narrow/2; {
			more, err := b.Read(room)
			if err != nil {
				t.Fatal(err)
			}
			n += more
		}
		waits := make(chan struct{})
		go func() { b.Await(); close(waits) }()
		if n := granted(t, p, id); n != narrow/2+round { // one more than the first time
			t.Errorf("%d bytes are given back", n)
		}
		p.data(id, false, "x")
		<-waits
		if n, err := b.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	p.data(id, true, "")
	b.Await()
	_ = b.Close()
	b.Await() // of what is closed
}
