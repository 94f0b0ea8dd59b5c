package h2_test

import (
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// tooWide is what an answer with as many fields as there may be has beyond the usual, and how long that takes.
const (
	tooWide  = h2.MostFields - 64
	freeTime = 16 * time.Millisecond
)

var wideTime = tooWide * 50 * time.Microsecond / time.Duration(runtime.GOMAXPROCS(0))

// An answer that was expected to have many fields and has few, or does not come, gives back what was counted for it,
// however the call ends. One that its caller gave up keeps it until the server has done with it.
func TestPace_ReturnsWhatWasReserved(t *testing.T) {
	t.Parallel()
	one := h2.Payer{Name: "one"}
	for name, tt := range map[string]struct {
		ends func(*h2.Stream, *h2.Conn, *peer, uint32)
		kept bool
	}{
		"a few fields": {ends: func(_ *h2.Stream, _ *h2.Conn, p *peer, id uint32) { answer(p, id, []int{8}) }},
		"reset by server": {ends: func(_ *h2.Stream, _ *h2.Conn, p *peer, id uint32) {
			p.must(p.fr.WriteRSTStream(id, http2.ErrCodeInternal))
		}},
		"of a connection":  {ends: func(_ *h2.Stream, c *h2.Conn, _ *peer, _ uint32) { c.Close() }},
		"given up":         {ends: func(s *h2.Stream, _ *h2.Conn, _ *peer, _ uint32) { s.Close() }, kept: true},
		"given up, and of": {ends: func(s *h2.Stream, c *h2.Conn, _ *peer, _ uint32) { s.Close(); c.Close() }},
		"given up, reset": {ends: func(s *h2.Stream, _ *h2.Conn, p *peer, id uint32) {
			s.Cancel(errors.New("nobody wants it"))
			p.must(p.fr.WriteRSTStream(id, http2.ErrCodeInternal))
		}},
		"given up, answered": {ends: func(s *h2.Stream, _ *h2.Conn, p *peer, id uint32) {
			s.Close()
			answer(p, id, []int{8})
		}},
		"given up, data": {ends: func(s *h2.Stream, _ *h2.Conn, p *peer, id uint32) {
			s.Close()
			p.headers(id, false, ":status", "200")
			p.data(id, true, "x")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := roomy()
				cfg.Pace = new(h2.Pace)
				c, p := pipe(t, cfg)
				wide := openFor(t, c, cfg.Pace, one.Name)
				answer(p, 1, []int{h2.MostFields})
				_ = failure(wide)
				time.Sleep(time.Second / 2) // until there was time for that
				s := openFor(t, c, cfg.Pace, one.Name)
				tt.ends(s, c, p, 3)
				synctest.Wait()
				expected, _ := cfg.Pace.Reserve(one)
				_, wait := cfg.Pace.Reserve(one)
				if most := wideTime/2 + time.Millisecond; tt.kept != (wait > most) {
					t.Errorf("the next but one waits %v", wait)
				}
				if zero := (h2.Reserved{}); expected == zero {
					t.Error("nothing is expected any more")
				}
				time.Sleep(time.Minute)
				if r, wait := cfg.Pace.Reserve(one); r != (h2.Reserved{}) || wait > 0 {
					t.Errorf("a minute later: %v, in %v", r, wait)
				}
			})
		})
	}
}

// A call that is not made gives back what was counted for it.
func TestPace_Return(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := h2.Payer{Name: "one"}
		cfg := roomy()
		cfg.Pace = new(h2.Pace)
		c, p := pipe(t, cfg)
		wide := openFor(t, c, cfg.Pace, one.Name)
		answer(p, 1, []int{h2.MostFields})
		_ = failure(wide)
		time.Sleep(time.Second / 2)
		r, wait := cfg.Pace.Reserve(one)
		if r == (h2.Reserved{}) || wait > 0 {
			t.Fatalf("%v is expected, in %v", r, wait)
		}
		if _, wait = cfg.Pace.Reserve(one); wait != wideTime-freeTime {
			t.Errorf("the next one waits %v", wait)
		}
		cfg.Pace.Return(one, r)
		cfg.Pace.Return(one, r)
		if again, wait := cfg.Pace.Reserve(one); again != r || wait > 0 {
			t.Errorf("after both were returned: %v, in %v", again, wait)
		}
	})
}

// Whoever waits for what others are to get waits no longer once they get nothing, and as long as before where they do.
func TestPace_WaitIsShorterWhereOthersGiveBack(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, after int // returns of what was reserved before and after the one that waits
		interrupted   bool
		whole         bool
	}{
		"nobody does": {whole: true}, "all do": {before: 100}, "those that came later": {after: 100, whole: true}, "interrupted": {interrupted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				one := h2.Payer{Name: "one"}
				cfg := roomy()
				cfg.Pace = new(h2.Pace)
				c, p := pipe(t, cfg)
				wide := openFor(t, c, cfg.Pace, one.Name)
				answer(p, 1, []int{h2.MostFields})
				_ = failure(wide)
				time.Sleep(time.Second / 2)
				many := func() (all []h2.Reserved) {
					for range 100 {
						r, _ := cfg.Pace.Reserve(one)
						all = append(all, r)
					}
					return all
				}
				before := many()
				r, wait := cfg.Pace.Reserve(one)
				after := many()
				if wait < 50*wideTime {
					t.Fatalf("it waits %v", wait)
				}
				began, interrupted := time.Now(), make(chan struct{})
				time.AfterFunc(5*time.Millisecond, func() {
					for _, r := range append(before[:tt.before], after[:max(tt.after, tt.before)]...) {
						cfg.Pace.Return(one, r)
					}
					if tt.interrupted {
						close(interrupted)
					}
				})
				if waited := cfg.Pace.Wait(one, r, wait, interrupted); waited == tt.interrupted {
					t.Errorf("it says %t", waited)
				}
				if took := time.Since(began); tt.whole != (took == wait) || !tt.whole && took > 20*time.Millisecond {
					t.Errorf("it took %v of %v", took, wait)
				}
			})
		})
	}
}

// An instance waits for no fields of another one of its name. Those that get many have the time of one together.
func TestAudit_ATK14_InstancesDoNotWaitForOneAnother(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := roomy()
		cfg.Pace = new(h2.Pace)
		c, p := pipe(t, cfg)
		id := uint32(1)
		wide := func(instance string) {
			r := get
			r.Payer = h2.Payer{Name: "name", Instance: instance}
			r.Expected, _ = cfg.Pace.Reserve(r.Payer) // and does not wait for it, as who makes many calls at a time
			s, _ := open(t, c, r)
			answer(p, id, []int{h2.MostFields})
			s.Close()
			synctest.Wait()
			id += 2
		}
		waits := func(instance string) time.Duration {
			r, wait := cfg.Pace.Reserve(h2.Payer{Name: "name", Instance: instance})
			cfg.Pace.Return(h2.Payer{Name: "name", Instance: instance}, r)
			return wait
		}
		const many = 20
		for range many {
			wide("bad")
		}
		if got, want := waits("bad"), many*wideTime-freeTime; got < want || got > want+wideTime {
			t.Errorf("who gets many waits %v, want %v", got, want)
		}
		if wait := waits("good"); wait > 0 {
			t.Errorf("another instance waits %v", wait)
		}
		wide("good")
		if got, want := waits("good"), 2*wideTime-freeTime; got != want {
			t.Errorf("after as many fields it waits %v, want %v: twice the time of one alone", got, want)
		}
		wide("third")
		if got, want := waits("third"), 3*wideTime-freeTime; got != want {
			t.Errorf("a third one waits %v, want %v", got, want)
		}
	})
}

// Who gets many fields now and a few then has some expected all the same, or a thousand calls would be made at once.
func TestAudit_H48_AShortAnswerBetweenHidesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := h2.Payer{Name: "one"}
		cfg := roomy()
		cfg.Pace = new(h2.Pace)
		c, p := pipe(t, cfg)
		for i, n := range []int{h2.MostFields, 8} {
			s := openFor(t, c, cfg.Pace, one.Name)
			answer(p, uint32(2*i+1), []int{n})
			_ = failure(s)
		}
		time.Sleep(time.Second / 2)
		const calls = 10
		var wait time.Duration
		for range calls {
			_, wait = cfg.Pace.Reserve(one)
		}
		if least := (calls-1)*wideTime/2 - freeTime; wait < least {
			t.Errorf("the last of %d calls at once waits %v, want %v", calls, wait, least)
		}
		s := openFor(t, c, cfg.Pace, one.Name)
		for i := range 12 { // which halve what is expected each time
			answer(p, uint32(2*i+5), []int{8})
			_ = failure(s)
			s = openFor(t, c, cfg.Pace, one.Name)
		}
		s.Close()
		time.Sleep(time.Second / 2)
		if r, _ := cfg.Pace.Reserve(one); r != (h2.Reserved{}) {
			t.Errorf("after many answers with a few fields %v is expected", r)
		}
	})
}
