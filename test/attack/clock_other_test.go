//go:build !(linux && amd64)

package attack_test

import (
	"testing"
	"time"
)

type processClock struct{}

func takeClock(t *testing.T) processClock {
	t.Helper()
	t.Skip("the clock of one process is only set on Linux on amd64")
	return processClock{}
}

func (processClock) set(time.Duration) {}
