package catalog_test

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
)

// machine is the clock of a machine that somebody sets: the wall's moves, and the monotonic one goes on as if nothing had been.
type machine struct {
	begun  time.Time
	passed atomic.Int64
	back   atomic.Int64 // seconds by which the wall's was set back
}

func (m *machine) now() time.Time {
	t := m.begun.Add(time.Duration(m.passed.Load()))
	// The first word of a time that has a monotonic reading has the seconds of the wall's clock above 30 bits.
	*(*uint64)(unsafe.Pointer(&t)) -= uint64(m.back.Load()) << 30 // package time has no other way
	return t
}

// Who was set aside comes back when its time is over, however the clock of the machine was set meanwhile: for as long as a clock is
// set back it would else get no call.
func TestOutlierComesBackWhateverTheClockSays(t *testing.T) {
	t.Parallel()

	for name, back := range map[string]time.Duration{"back": time.Hour, "ahead": -time.Hour, "not": 0} {
		m := &machine{begun: time.Now()}
		c := offers(t, catalog.Config{Now: m.now})
		register(t, c, reg("a", "log", "1.0.0"), reg("b", "log", "1.0.0"))
		fail(c, "a", 5)

		before := m.now()
		m.back.Store(int64(back.Seconds()))

		if moved := before.Round(0).Sub(m.now().Round(0)); moved != back || m.now().Sub(before) != 0 {
			t.Fatalf("%s: the clock is set by %v", name, moved)
		}

		m.passed.Store(int64(9 * time.Second))

		if got := selected(t, c, "log", ""); got != "b" {
			t.Errorf("set %s, after 9 seconds: %s", name, got)
		}

		m.passed.Store(int64(10 * time.Second))

		if got := selected(t, c, "log", ""); got != "a" {
			t.Errorf("set %s, after 10 seconds: %s", name, got)
		}
	}
}
