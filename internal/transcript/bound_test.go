package transcript_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// setBack is the moment at a steady time of a clock that was set by as much.
func setBack(steady time.Time, by time.Duration) transcript.Moment {
	return transcript.Moment{Wall: steady.Add(-by), Steady: steady}
}

func newBound(total, perSelf int) *transcript.Bound {
	return transcript.NewBound(transcript.ReplayConfig{Skew: skew, MaxTotal: total, MaxPerSelf: perSelf})
}

// A clock that is set back by an hour, or ahead, keeps neither those out whose clock was
// set with it nor those whose clock was not, at once and for as long as it is wrong.
func TestAudit_USE28_AClockThatIsSetKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"back": time.Hour, "ahead": -time.Hour, "far back": 1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBound(1000, 1000)
			n := 0
			try := func(what string, issuedAt time.Time, now transcript.Moment, want error) {
				t.Helper()
				n++
				if err := b.Claim("a", nonce(n), issuedAt, now); !errors.Is(err, want) {
					t.Errorf("%s, %s after noon: %v, want %v", what, now.Steady.Sub(noon), err, want)
				}
			}
			for m := range 10 {
				at := noon.Add(time.Duration(m) * skew / 2)
				try("before", at, setBack(at, 0), nil)
			}
			for m := range 150 {
				at := noon.Add(10*skew + time.Duration(m)*skew/2)
				try("set with the host's", at.Add(-by), setBack(at, by), nil)
				try("not set", at, setBack(at, by), nil)
				try("neither", at.Add(-by/2), setBack(at, by), transcript.ErrSkew)
			}
		})
	}
}

// However the clock is set, what is accepted is remembered for as long as it could be
// claimed again, and no longer.
func TestAudit_USE28_ASetClockFillsNothing(t *testing.T) {
	t.Parallel()
	b := newBound(4, 4)
	for m := range 100 {
		at := noon.Add(time.Duration(m) * skew)
		now := setBack(at, time.Hour)
		if err := b.Claim("a", nonce(m), now.Wall, now); err != nil {
			t.Fatalf("after %d minutes: %v", m, err)
		}
		if err := b.Claim("a", nonce(m), now.Wall, now); !errors.Is(err, transcript.ErrReplayed) {
			t.Fatalf("again: %v", err)
		}
	}
}

func TestBound_BoundsAndNonces(t *testing.T) {
	t.Parallel()
	b, now := newBound(2, 1), setBack(noon, 0)
	for _, c := range []struct {
		self string
		n    []byte
		want error
	}{
		{"a", nonce(1), nil},
		{"a", nonce(1), transcript.ErrReplayed},
		{"a", nonce(2), transcript.ErrFull},
		{"b", nonce(1), nil},
		{"c", nonce(1), transcript.ErrFull},
		{"c", nil, transcript.ErrNonce},
	} {
		if err := b.Claim(c.self, c.n, noon, now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.self, err, c.want)
		}
	}
	if err := b.Claim("c", nonce(1), noon.Add(2*skew), setBack(noon.Add(skew+1), 0)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := transcript.NewClock()
		time.Sleep(time.Hour)
		if now := c.Now(); !now.Wall.Equal(time.Now()) || !now.Steady.Equal(time.Now()) {
			t.Errorf("%+v at %s", now, time.Now())
		}
	})
}
