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
	if len(r.seen) > 2 || len(r.count) > 2 || len(r.ages) > 2 || cap(r.ages) > 8 {
		t.Errorf("%d nonces, %d counts, %d ages (room for %d) are left", len(r.seen), len(r.count), len(r.ages), cap(r.ages))
	}
}
