package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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
			go one(far, dials.Load() > 1)
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

// one takes one stream at a time, and answers it or not.
func one(c net.Conn, answers bool) {
	defer func() { _ = c.Close() }()
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(c, c)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	}()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if h, ok := f.(*http2.HeadersFrame); ok && answers {
			<-told
			var b bytes.Buffer
			_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "204"})
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true})
		}
	}
}
