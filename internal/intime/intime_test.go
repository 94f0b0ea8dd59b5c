package intime_test

import (
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/intime"
)

func TestWait(t *testing.T) {
	t.Parallel()

	for left, want := range map[time.Duration]time.Duration{
		time.Hour:               time.Hour - 500*time.Millisecond,
		800 * time.Millisecond:  700 * time.Millisecond,
		10 * time.Millisecond:   8750 * time.Microsecond,
		9 * time.Millisecond:    0,
		-time.Second:            0,
		4000 * time.Millisecond: 3500 * time.Millisecond,
	} {
		if got, ok := intime.Wait(left); got != want || ok != (want > 0) {
			t.Errorf("%v: %v, %v; want %v", left, got, ok, want)
		}
	}
}

func TestHalf(t *testing.T) {
	t.Parallel()

	for left, want := range map[time.Duration]time.Duration{
		time.Hour:             30 * time.Minute,
		10 * time.Millisecond: 5 * time.Millisecond,
		9 * time.Millisecond:  0,
		-time.Second:          0,
	} {
		if got, ok := intime.Half(left); got != want || ok != (want > 0) {
			t.Errorf("%v: %v, %v; want %v", left, got, ok, want)
		}
	}
}
