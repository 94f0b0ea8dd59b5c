package edge

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// However many wait, each gets a turn as long as others do; who has one and does nothing with it
// keeps the others waiting no longer than it must.
func TestAudit_USE42_HandshakesTakeTurnsHoweverMany(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		waiting int
		compute time.Duration // of each, in its turn
		want    int           // that get one
	}{
		"many that compute for long in all": {50, longestTurn / 2, 50},
		"one that asks somebody else":       {3, time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := &turns{taken: make(chan struct{}, 1)}
				var got, passed atomic.Int64
				began := time.Now()
				for range tt.waiting {
					go func() {
						if all.await(t.Context()) {
							got.Add(1)
							time.Sleep(tt.compute)
							<-all.taken
							return
						}
						passed.Add(1)
						if waited := time.Since(began); waited > 2*longestTurn {
							t.Errorf("went without a turn after %v", waited)
						}
					}()
				}
				time.Sleep(3 * time.Hour)
				if int(got.Load()) != tt.want || int(got.Load()+passed.Load()) != tt.waiting {
					t.Errorf("%d got a turn and %d went without, of %d", got.Load(), passed.Load(), tt.waiting)
				}
			})
		})
	}
}
