package transcript

import (
	"encoding/binary"
	"strconv"
	"testing"
	"time"
)

func TestReplay_WhatExpiredLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	const claims = 10_000
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	r := NewReplay(ReplayConfig{Skew: time.Second, MaxTotal: claims, MaxPerSelf: claims})
	for i := range claims {
		now = now.Add(time.Second)
		nonce := binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i))
		if err := r.Claim("self-"+strconv.Itoa(i), nonce, now, now); err != nil {
			t.Fatal(err)
		}
	}
	n := r.seen
	if n.len() > 2 || len(n.count) > 2 || len(n.times) > 2 || cap(n.times) > 8 {
		t.Errorf("%d nonces, %d counts, %d times (room for %d) are left", n.len(), len(n.count), len(n.times), cap(n.times))
	}
}
