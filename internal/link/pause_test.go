package link_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// One dial fails while the only connection is full of a stream that stays. The request that waits
// gets another connection once the pause is over.
func TestPool_DialsAgainAfterThePause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		p := newPool(t, func(_ context.Context, below func(net.Conn) net.Conn) (net.Conn, error) {
			if dials.Add(1) == 2 {
				return nil, errors.New("refused once")
			}
			near, far := net.Pipe()
			go play(far, true, dials.Load() > 1, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
			return below(near), nil
		}, 4, nil)
		long, end := context.WithCancel(t.Context())
		go func() { _, _ = get(long, p, "http://host.example/long") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if _, err := get(ctx, p, "http://host.example/short"); err != nil || time.Since(begun) > 2*time.Second {
			t.Errorf("after %v and %d dials: %v", time.Since(begun), dials.Load(), err)
		}
		end()
		synctest.Wait()
		p.Close()
	})
}
