package transcript_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const skew = time.Minute

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func nonce(i int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i))
}

func newReplay(total, perSelf int) *transcript.Replay {
	return transcript.NewReplay(transcript.ReplayConfig{Skew: skew, MaxTotal: total, MaxPerSelf: perSelf})
}

func claim(t *testing.T, r *transcript.Replay, selfID string, n int, issued, now time.Time, want error) {
	t.Helper()
	if err := r.Claim(selfID, nonce(n), issued, now); !errors.Is(err, want) {
		t.Errorf("claim of %s/%d issued %s at %s: %v, want %v", selfID, n, issued.Sub(noon), now.Sub(noon), err, want)
	}
}

func TestCheckSkew(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		issued time.Time
		want   error
	}{
		"now":           {noon, nil},
		"oldest":        {noon.Add(-skew), nil},
		"newest":        {noon.Add(skew), nil},
		"too old":       {noon.Add(-skew - 1), transcript.ErrSkew},
		"too far ahead": {noon.Add(skew + 1), transcript.ErrSkew},
		"zero":          {time.Time{}, transcript.ErrSkew},
		"epoch":         {time.Unix(0, 0), transcript.ErrSkew},
		"end of time":   {time.Unix(1<<63-1, 0), transcript.ErrSkew},
		"start of time": {time.Unix(-1<<63, 0), transcript.ErrSkew},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := transcript.CheckSkew(tt.issued, noon, skew); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// The operator of a plugin whose clock is wrong has to know which way, and how far.
func TestCheckSkew_SaysByHowMuch(t *testing.T) {
	t.Parallel()
	for want, issued := range map[string]time.Time{
		"by the peer's clock 1h0m0s after the time of this one":  noon.Add(time.Hour),
		"by the peer's clock 1h0m0s before the time of this one": noon.Add(-time.Hour),
	} {
		bound := transcript.NewBound(transcript.ReplayConfig{Skew: skew, MaxTotal: 10, MaxPerSelf: 10})
		for who, err := range map[string]error{
			"unbound": newReplay(10, 10).Claim("a", nonce(1), issued, noon),
			"bound":   bound.Claim("a", nonce(1), issued, transcript.Moment{Wall: noon, Steady: noon}),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", who, err, want)
			}
		}
	}
}

func TestAudit_PROTO33_ANonceIsGoodOncePerSelfID(t *testing.T) {
	t.Parallel()
	r := newReplay(10, 10)
	claim(t, r, "a", 1, noon, noon, nil)
	claim(t, r, "a", 1, noon, noon, transcript.ErrReplayed)
	claim(t, r, "a", 1, noon.Add(1), noon, transcript.ErrReplayed)
	claim(t, r, "b", 1, noon, noon, nil)
	claim(t, r, "a", 2, noon, noon, nil)
	claim(t, r, "a", 1, noon, noon.Add(skew), transcript.ErrReplayed)
	claim(t, r, "a", 1, noon, noon.Add(skew+1), transcript.ErrSkew)
	for _, n := range [][]byte{nil, make([]byte, 31), make([]byte, 33)} {
		if err := r.Claim("a", n, noon, noon); !errors.Is(err, transcript.ErrNonce) {
			t.Errorf("a nonce of %d bytes: %v", len(n), err)
		}
	}
}

func TestReplay_AFullCacheRefusesAndForgetsNothing(t *testing.T) {
	t.Parallel()
	r := newReplay(3, 2)
	claim(t, r, "a", 1, noon, noon, nil)
	claim(t, r, "a", 2, noon.Add(time.Second), noon, nil)
	claim(t, r, "a", 3, noon, noon, transcript.ErrFull)
	claim(t, r, "b", 1, noon.Add(2*time.Second), noon, nil)
	claim(t, r, "b", 2, noon, noon, transcript.ErrFull)
	claim(t, r, "a", 1, noon, noon, transcript.ErrReplayed)
	claim(t, r, "b", 1, noon.Add(2*time.Second), noon, transcript.ErrReplayed)

	// The oldest of a expires, one place comes free.
	later := noon.Add(skew + 1)
	claim(t, r, "a", 3, later, later, nil)
	claim(t, r, "b", 2, later, later, transcript.ErrFull)
	if r.Len() != 3 {
		t.Errorf("%d nonces are remembered", r.Len())
	}
	// Everything expires.
	later = noon.Add(10 * skew)
	for n := range 2 {
		claim(t, r, "c", n, later, later, nil)
	}
	if r.Len() != 2 {
		t.Errorf("%d nonces are remembered", r.Len())
	}
}

func TestReplay_TheZeroConfigRefuses(t *testing.T) {
	t.Parallel()
	r := transcript.NewReplay(transcript.ReplayConfig{})
	claim(t, r, "a", 1, noon, noon, transcript.ErrFull)
}

func TestReplay_WhatAnEarlierCacheMayHaveSeenIsRefused(t *testing.T) {
	t.Parallel()
	r := transcript.NewReplay(transcript.ReplayConfig{Skew: skew, MaxTotal: 10, MaxPerSelf: 10, Since: noon})
	claim(t, r, "a", 1, noon.Add(-1), noon, transcript.ErrForgotten)
	claim(t, r, "a", 2, noon, noon, nil)
	claim(t, r, "a", 3, noon.Add(1), noon, nil)
}

func TestReplay_AClockSetBackRevivesNothing(t *testing.T) {
	t.Parallel()
	r := newReplay(10, 10)
	claim(t, r, "a", 1, noon, noon, nil)
	later := noon.Add(skew + time.Second)
	claim(t, r, "a", 2, later, later, nil) // forgets the first
	if r.Len() != 1 {
		t.Fatalf("%d nonces are remembered", r.Len())
	}
	claim(t, r, "a", 1, noon, noon, transcript.ErrForgotten)
	claim(t, r, "a", 3, noon.Add(1), noon, nil)
}

// Whatever the clock and the order of claims, no handshake is accepted twice.
func TestAudit_PROTO33_NothingIsAcceptedTwice(t *testing.T) {
	t.Parallel()
	total := 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 0))
		r := newReplay(50, 20)
		accepted := make(map[string]bool)
		now := noon
		for range 2000 {
			switch rng.IntN(20) {
			case 0:
				now = now.Add(-time.Duration(rng.Int64N(int64(3 * skew))))
			case 1:
				now = now.Add(time.Duration(rng.Int64N(int64(3 * skew))))
			default:
				now = now.Add(time.Duration(rng.Int64N(int64(time.Second))))
			}
			// A nonce belongs to one issue time: the proof covers both.
			n := rng.IntN(500)
			issued := noon.Add(time.Duration(n) * skew / 40)
			self := fmt.Sprintf("self-%d", n%4)
			if r.Claim(self, nonce(n), issued, now) != nil {
				continue
			}
			if accepted[self+string(nonce(n))] {
				t.Fatalf("seed %d: nonce %d was accepted twice", seed, n)
			}
			accepted[self+string(nonce(n))] = true
		}
		total += len(accepted)
	}
	if total < 1000 {
		t.Errorf("only %d handshakes were accepted", total)
	}
}

func TestReplay_ConcurrentClaimsOfOneNonceHaveOneWinner(t *testing.T) {
	t.Parallel()
	const nonces, workers = 200, 8
	r := newReplay(nonces, nonces)
	var won atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := range nonces {
				if r.Claim("a", nonce(n), noon, noon) == nil {
					won.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if won.Load() != nonces || r.Len() != nonces {
		t.Errorf("%d claims won and %d are remembered, want %d", won.Load(), r.Len(), nonces)
	}
}

func BenchmarkReplay_Claim(b *testing.B) {
	b.ReportAllocs()
	r := newReplay(1<<16, 1<<16)
	now, i := noon, 0
	for b.Loop() {
		i++
		now = now.Add(2 * time.Millisecond) // 30,000 live ones
		if err := r.Claim("a", nonce(i), now, now); err != nil {
			b.Fatal(err)
		}
	}
}
