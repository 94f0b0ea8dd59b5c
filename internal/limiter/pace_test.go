package limiter_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/limiter"
)

func TestPaceGivesEachALaterTime(t *testing.T) {
	t.Parallel()
	var p limiter.Pace
	now := time.Unix(1000, 0)
	admit := func(want time.Duration) {
		t.Helper()
		if got := p.Admit(10, 2, now); got != want {
			t.Errorf("wait %v, want %v", got, want)
		}
	}
	admit(0)
	admit(0)
	for n := 1; n <= 3; n++ {
		admit(time.Duration(n) * 100 * time.Millisecond)
	}
	now = now.Add(100 * time.Millisecond)
	admit(0)
	admit(300 * time.Millisecond) // 400 after the beginning
	p.Return()
	admit(0)
	now = now.Add(-time.Hour) // time does not run backwards
	admit(400 * time.Millisecond)
	now = now.Add(2 * time.Hour)
	admit(0)
	admit(0)
	admit(100 * time.Millisecond)
}

func TestPaceHasBounds(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for _, perSecond := range []float64{0, -1, 1e-9} {
		var p limiter.Pace
		if p.Admit(perSecond, 1, now) != 0 || p.Admit(perSecond, 1, now) != time.Minute {
			t.Errorf("%v a second", perSecond)
		}
	}
	var p limiter.Pace
	last := time.Duration(0)
	for range 100 {
		last = p.Admit(1, 0, now)
	}
	if last != time.Minute {
		t.Errorf("the hundredth waits %v", last)
	}
}
