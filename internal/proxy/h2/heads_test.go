package h2_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// fieldsTo are so many fields after others, each of a few bytes.
func fieldsTo(n int, before ...string) []string {
	list := before
	for i := range n {
		list = append(list, fmt.Sprintf("x-%d", i), "")
	}
	return list
}

// roomy is a configuration that takes large heads.
func roomy() h2.Config {
	cfg := config()
	cfg.MaxHeaderBytes = 256 << 10
	return cfg
}

// An answer has so many fields in its head, in what comes before that, and in its trailer together. One with more
// breaks, and nobody else of the connection.
func TestAudit_H48_FieldsOfAnAnswerAreCounted(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		interim, head, trailer int
		ok                     bool
	}{
		"a head":                    {0, h2.MostFields, 0, true},
		"a larger head":             {0, h2.MostFields + 1, 0, false},
		"a trailer":                 {0, 0, h2.MostFields, true},
		"a larger trailer":          {0, 0, h2.MostFields + 1, false},
		"head and trailer":          {0, 600, 400, true},
		"more of head and trailer":  {0, 600, 401, false},
		"interim heads":             {200, 300, 300, true},
		"more of interim heads too": {200, 300, 301, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, roomy())
				s, _ := open(t, c, get)
				other, _ := open(t, c, get)
				p.want(http2.FrameHeaders)
				p.want(http2.FrameHeaders)
				if tt.interim > 0 {
					p.headers(1, false, fieldsTo(tt.interim, ":status", "103")...)
					p.headers(1, false, fieldsTo(tt.interim, ":status", "103")...)
				}
				p.headers(1, tt.trailer == 0, fieldsTo(tt.head, ":status", "200")...)
				if tt.trailer > 0 {
					p.headers(1, true, fieldsTo(tt.trailer)...)
				}
				err := failure(s)
				if tt.ok && err != nil || !tt.ok && (!errors.Is(err, h2.ErrFields) || !malformed(err)) {
					t.Errorf("%v", err)
				}
				if !tt.ok {
					if f := p.want(http2.FrameRSTStream); f.StreamID != 1 {
						t.Errorf("reset %v", f)
					}
				}
				p.headers(3, true, ":status", "200", "x", "y")
				if err := failure(other); err != nil || !c.Usable() {
					t.Errorf("another call: %v", err)
				}
			})
		})
	}
}

// A stream does not keep what it handed over.
func TestAudit_H48_AHeadIsHandedOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, p := pipe(t, roomy())
		s, _ := open(t, c, get)
		p.headers(1, false, fieldsTo(100, ":status", "200")...)
		for i, want := range []int{100, 0} {
			if status, fields, err := s.Head(); status != 200 || len(fields) != want || err != nil {
				t.Errorf("call %d: %d, %d fields, %v", i, status, len(fields), err)
			}
		}
	})
}

// Servers of one owner that send many fields wait for one another, on however many connections they do, as far as the same
// caller gets them. Those that send a few wait for nobody, and nobody else waits for them.
func TestAudit_H48_ManyFieldsWaitTheirTurn(t *testing.T) {
	t.Parallel()
	const (
		field = 50 * time.Microsecond // of one processor
		usual = 64
		free  = 16 * time.Millisecond
		each  = 900
	)
	answers := 4 * runtime.GOMAXPROCS(0)
	for name, tt := range map[string]struct {
		fields  []int // of heads before the final one, of that, and of its trailer
		counted int   // of them
	}{
		"a head":          {[]int{each}, each - usual},
		"a trailer":       {[]int{10, each}, each + 10 - usual},
		"too many":        {[]int{2 * each}, 2*each - usual},
		"interim heads":   {[]int{30, 30, 30, 30}, 4*30 - usual},
		"no more than is": {[]int{usual / 2, usual / 2}, 0},
		"a few":           {[]int{8, 8}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := roomy()
				cfg.Pace = new(h2.Pace)
				began := time.Now()
				call := func(c *h2.Conn, p *peer, id uint32, who string, fields []int) {
					s := openFor(t, c, cfg.Pace, who)
					answer(p, id, fields)
					_ = failure(s)
				}
				for range 2 { // connections
					c, p := pipe(t, cfg)
					for i := range answers / 2 {
						call(c, p, uint32(2*i+1), "one", tt.fields)
					}
				}
				c, p := pipe(t, cfg)
				at := time.Now()
				call(c, p, 1, "another", []int{8})
				if took := time.Since(at); took > 0 {
					t.Errorf("another caller waited %v", took)
				}
				call(c, p, 3, "one", []int{8}) // which waits for those before it
				most := time.Duration(answers*tt.counted) * field / time.Duration(runtime.GOMAXPROCS(0))
				took := time.Since(began)
				if least := most - free; took < least || took > most {
					t.Errorf("it took %v, want %v to %v", took, least, most)
				}
				call(c, p, 5, "one", []int{8}) // for which nothing is counted any more
				if again := time.Since(began) - took; again > 0 {
					t.Errorf("after an answer with few fields the next one waited %v", again)
				}
			})
		})
	}
}

// openFor makes a call of somebody when there is time for it.
func openFor(t *testing.T, c *h2.Conn, pace *h2.Pace, who string) *h2.Stream {
	t.Helper()
	r := get
	r.Owner, r.Payer = who, h2.Payer{Name: who}
	var wait time.Duration
	r.Expected, wait = pace.Reserve(r.Payer)
	time.Sleep(wait) // as it is told to
	s, _ := open(t, c, r)
	return s
}

// answer sends the heads of an answer: those before the final one, where there are three or more, that, and the trailer.
func answer(p *peer, id uint32, fields []int) {
	p.t.Helper()
	for i, n := range fields {
		var status []string
		switch {
		case i < len(fields)-2:
			status = []string{":status", "103"}
		case i == len(fields)-2, len(fields) == 1:
			status = []string{":status", "200"}
		}
		largeBlock(p, id, i == len(fields)-1, fieldsTo(n, status...)...)
	}
}

// A head that waits its turn keeps nobody else of its connection, whenever the other answer comes, and waits no longer than
// somebody wants it.
func TestAudit_H48_WhoWaitsItsTurnKeepsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := roomy()
		cfg.Pace = new(h2.Pace)
		c, p := pipe(t, cfg)
		streams := make([]*h2.Stream, 5)
		for i := range streams {
			streams[i] = openFor(t, c, cfg.Pace, "one")
		}
		other := openFor(t, c, cfg.Pace, "another")
		answer(p, 1, []int{h2.MostFields}) // that takes what is free
		_ = failure(streams[0])
		began := time.Now()
		answer(p, 3, []int{h2.MostFields})
		p.headers(5, false, ":status", "200")
		p.data(5, false, "first")
		largeBlock(p, 5, true, fieldsTo(h2.MostFields-1)...)
		answer(p, 7, []int{h2.MostFields})
		answer(p, 9, []int{h2.MostFields})
		answer(p, 11, []int{8})
		if err := failure(other); err != nil || time.Since(began) > 0 {
			t.Errorf("another caller's answer: %v after %v", err, time.Since(began))
		}
		if status, _, err := streams[2].Head(); status != 200 || err != nil || time.Since(began) == 0 {
			t.Errorf("a head before a trailer that waits: %d, %v after %v", status, err, time.Since(began))
		}
		began = time.Now()
		told := make(chan error)
		go func() { told <- failure(streams[3]) }()
		synctest.Wait()
		streams[3].Cancel(errors.New("nobody wants it"))
		if <-told; time.Since(began) > 0 {
			t.Errorf("who was cancelled waited %v", time.Since(began))
		}
		go func() { told <- failure(streams[4]) }()
		synctest.Wait()
		streams[4].Close()
		if <-told; time.Since(began) > 0 {
			t.Errorf("who was closed waited %v", time.Since(began))
		}
	})
}

// What comes on a stream that its caller gave up is counted for it as if it had not.
func TestAudit_H48_WhoGivesUpPaysAllTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := roomy()
		cfg.Pace = new(h2.Pace)
		c, p := pipe(t, cfg)
		calls := 40 * runtime.GOMAXPROCS(0)
		for i := range calls {
			r := get
			r.Owner, r.Payer = "one", h2.Payer{Name: "one"}
			s, _ := open(t, c, r)
			s.Close()
			answer(p, uint32(2*i+1), []int{40, 40, 40})
		}
		synctest.Wait()
		if _, wait := cfg.Pace.Reserve(h2.Payer{Name: "one"}); wait < 90*time.Millisecond {
			t.Errorf("it waits for %v", wait)
		}
		if _, wait := cfg.Pace.Reserve(h2.Payer{Name: "another"}); wait > 0 {
			t.Errorf("another one waits for %v", wait)
		}
	})
}

// Frames with next to nothing in them wait for one another, and so their server does, once its window is full of them.
func TestAudit_H48_SmallFramesWaitTheirTurn(t *testing.T) {
	t.Parallel()
	const small, each = 20_000, 25 * time.Microsecond
	for name, tt := range map[string]struct {
		data  string
		waits bool
	}{"a byte each": {"x", true}, "more": {string(make([]byte, 64)), false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				cfg.Pace = new(h2.Pace)
				c, p := pipe(t, cfg)
				s, began := openFor(t, c, cfg.Pace, "one"), time.Now()
				p.headers(1, false, ":status", "200")
				got := make(chan int)
				go func() {
					body, _ := body(s)
					got <- len(body)
				}()
				for range small * len("x") / len(tt.data) {
					p.data(1, false, tt.data)
				}
				p.data(1, true, "")
				if n := <-got; n != small/len(tt.data)*len(tt.data) {
					t.Errorf("%d bytes", n)
				}
				least := small*each/time.Duration(runtime.GOMAXPROCS(0)) - 20*time.Millisecond
				if took := time.Since(began); took < least && tt.waits || took > 0 && !tt.waits {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// payer has room for so many bytes.
type payer struct {
	room int
	told []int
}

func (h *payer) Hold(bytes int) bool {
	h.told = append(h.told, bytes)
	h.room -= bytes
	return h.room >= 0
}

// Whoever has a large answer pays for its head and its trailer, by what they hold; where there is no room the call breaks,
// which is no fault of the server's.
func TestAudit_H48_LargeHeadsArePaidFor(t *testing.T) {
	t.Parallel()
	const field = 128 // bytes besides the text
	hold := func(n int) int {
		size := field + len(":status") + len("200")
		for i := range n {
			size += field + len(fmt.Sprintf("x-%d", i))
		}
		return size
	}
	for name, tt := range map[string]struct {
		room          int
		head, trailer int
		told          []int
		ok            bool
	}{
		"a small head":         {0, 20, 0, nil, true},
		"a large head":         {hold(100), 100, 0, []int{hold(100)}, true},
		"a larger one":         {hold(100) - 1, 100, 0, []int{hold(100)}, false},
		"a trailer":            {1 << 20, 100, 200, []int{hold(100), hold(200) - hold(0)}, true},
		"a trailer of no room": {hold(250), 100, 200, []int{hold(100), hold(200) - hold(0)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, p := pipe(t, roomy())
				pays := &payer{room: tt.room}
				r := get
				r.Holder = pays
				s, _ := open(t, c, r)
				p.want(http2.FrameHeaders)
				p.headers(1, false, fieldsTo(100, ":status", "103")...) // which nobody holds
				p.headers(1, tt.trailer == 0, fieldsTo(tt.head, ":status", "200")...)
				if tt.trailer > 0 {
					p.headers(1, true, fieldsTo(tt.trailer)...)
				}
				err := failure(s)
				synctest.Wait()
				if fmt.Sprint(pays.told) != fmt.Sprint(tt.told) || tt.ok && err != nil || !tt.ok && (!errors.Is(err, h2.ErrHeld) || malformed(err)) {
					t.Errorf("told %v, want %v; %v", pays.told, tt.told, err)
				}
				if !tt.ok {
					if f := p.want(http2.FrameRSTStream); f.payload[3] != byte(http2.ErrCodeCancel) {
						t.Errorf("reset %v", f)
					}
				}
			})
		})
	}
}
