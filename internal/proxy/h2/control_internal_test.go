package h2

import (
	"bytes"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestAudit_ATK13_SettingsTouchNoStream handles what a server says about windows
// under streams that are none: whoever looked at one would panic.
func TestAudit_ATK13_SettingsTouchNoStream(t *testing.T) {
	t.Parallel()
	c := &Conn{
		streams: map[uint32]*Stream{1: nil, 3: nil}, waiters: []*Stream{nil}, nextID: 5, lastStream: maxStreamID,
		shares: map[string]*share{"a": nil, "b": nil}, holders: []*share{{held: 1}}, shared: 1, capacity: 1, peer: peerSettings{window: initialWindow},
	}
	c.encoder = hpack.NewEncoder(&c.block)
	var raw bytes.Buffer
	fr := http2.NewFramer(&raw, &raw)
	var settings []http2.Setting
	for i := range 2700 {
		settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i * 100)})
	}
	for _, write := range []func() error{
		func() error { return fr.WriteSettings(settings...) },
		func() error { return fr.WriteWindowUpdate(0, 1) },
		func() error { return fr.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		func() error { return fr.WriteGoAway(5, http2.ErrCodeNo, nil) },
		func() error { return fr.WriteGoAway(2, http2.ErrCodeNo, nil) },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		frame, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		c.flushing = true // nobody writes
		if err := c.handleLocked(frame); err != nil {
			t.Errorf("%v: %v", frame.Header(), err)
		}
	}
	if c.shared != 0 || len(c.holders) != 0 {
		t.Errorf("%d bytes held, %d holders", c.shared, len(c.holders))
	}
	if c.peer.window != 269900 || !c.raised || !c.moved || c.sendWindow != 1 {
		t.Errorf("window %d, raised %v, moved %v, send window %d", c.peer.window, c.raised, c.moved, c.sendWindow)
	}
}

// counted counts how often it was locked.
type counted struct {
	sync.Locker

	n *atomic.Int64
}

func (c counted) Lock() {
	c.n.Add(1)
	c.Locker.Lock()
}

// TestAudit_ATK13_WhatHelpsNobodyWakesNobody has uploads wait for the window of the connection,
// and the server change that of the streams back and forth. Then it allows all.
func TestAudit_ATK13_WhatHelpsNobodyWakesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &Conn{streams: map[uint32]*Stream{}, shares: map[string]*share{}, nextID: 1, flushing: true}
		c.peer = peerSettings{window: initialWindow, maxFrame: maxFrame, maxHeader: largestBlock}
		c.limit.Store(noLimit)
		c.encoder = hpack.NewEncoder(&c.block)
		var woken atomic.Int64
		var wg sync.WaitGroup
		const uploads = 20
		for i := range uploads {
			s, _, err := c.Open(Request{Owner: strconv.Itoa(i)})
			if err != nil {
				t.Fatal(err)
			}
			s.sendWake.L = counted{&c.mu, &woken}
			wg.Go(func() {
				if err := s.Write([]byte("hello"), true); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		for i := range 100 {
			c.mu.Lock()
			if err := c.initialWindowLocked(int64(i % 2 * 1000)); err != nil {
				t.Error(err)
			}
			c.wakeMovedLocked()
			c.mu.Unlock()
			synctest.Wait()
		}
		if n := woken.Load(); n > 0 {
			t.Errorf("uploads were woken %d times in vain", n)
		}
		c.mu.Lock()
		c.regainLocked(1 << 20)
		c.mu.Unlock()
		for range uploads { // as each does for the next one when it has written
			c.mu.Lock()
			c.moved = true
			c.wakeMovedLocked()
			c.mu.Unlock()
			synctest.Wait()
		}
		wg.Wait()
		if n := woken.Load(); n > 2*uploads {
			t.Errorf("%d uploads went on, woken %d times", uploads, n)
		}
	})
}
