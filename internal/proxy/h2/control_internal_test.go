package h2

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestAudit_ATK13_SettingsTouchNoStream handles what a server says about windows
// under streams that are none: whoever looked at one would panic.
func TestAudit_ATK13_SettingsTouchNoStream(t *testing.T) {
	t.Parallel()
	c := &Conn{
		streams: map[uint32]*Stream{1: nil, 3: nil}, waiters: []*Stream{nil}, nextID: 5, lastStream: maxStreamID,
		shares: map[string]*share{"a": nil}, peer: peerSettings{window: initialWindow},
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
	if c.peer.window != 269900 || !c.raised || !c.moved || c.sendWindow != 1 {
		t.Errorf("window %d, raised %v, moved %v, send window %d", c.peer.window, c.raised, c.moved, c.sendWindow)
	}
}
