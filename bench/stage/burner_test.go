package stage

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// What is due is what was burnt at the end of the stretch that holds a moment.
func TestCurve(t *testing.T) {
	t.Parallel()
	c := Curve{{At: 5, CPU: 3}, {At: 10, CPU: 3}, {At: 15, CPU: 9}}
	for at, want := range map[time.Duration]time.Duration{0: 3, 4: 3, 5: 3, 9: 3, 10: 9, 14: 9, 15: 9, 100: 9} {
		if got := c.due(at); got != want {
			t.Errorf("%d is due at %d, want %d", got, at, want)
		}
	}
	if got := Curve(nil).due(0); got != 0 {
		t.Errorf("%d of nothing", got)
	}
}

// A burner uses the processor time of its curve, at its moments, and hardly more.
func TestBurn(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processor time of threads is known on Linux")
	}
	const burnt = 60 * time.Millisecond
	pid := os.Getpid()
	before := processorTime(pid)
	Burn(t.Context(), Curve{{At: 200 * time.Millisecond}, {At: 400 * time.Millisecond, CPU: burnt}, {At: time.Second, CPU: burnt}})
	if used := processorTime(pid) - before; used < burnt || used > 3*burnt {
		t.Errorf("used %v, want %v", used, burnt)
	}
	idle := processorTime(pid)
	Burn(t.Context(), Curve{{At: 200 * time.Millisecond}})
	if used := processorTime(pid) - idle; used > burnt/2 {
		t.Errorf("used %v for nothing", used)
	}
}
