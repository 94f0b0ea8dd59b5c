package h2

import (
	"fmt"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const maxWindow = 1<<31 - 1

// settingsLocked takes in settings that changed and acknowledges them.
func (c *Conn) settingsLocked(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if err := c.applySettingsLocked(f); err != nil {
		return err
	}
	c.flushElsewhereLocked()
	return nil
}

func (c *Conn) applySettingsLocked(f *http2.SettingsFrame) error {
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err //nolint:wrapcheck // a connection error, looked at by its type
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			return c.initialWindowLocked(int64(s.Val))
		case http2.SettingMaxFrameSize:
			c.peer.maxFrame = min(int(s.Val), largestFrame)
		case http2.SettingMaxConcurrentStreams:
			c.limit.Store(int64(min(s.Val, noLimit)))
		case http2.SettingHeaderTableSize:
			c.peer.table = min(s.Val, tableSize)
			c.encoder.SetMaxDynamicTableSize(c.peer.table)
		case http2.SettingMaxHeaderListSize:
			c.peer.maxHeader = int64(s.Val)
		default:
		}
		return nil
	})
	if err != nil {
		return err //nolint:wrapcheck // a connection error, looked at by its type
	}
	c.out = h2frame.AppendSettingsAck(c.out)
	c.control += h2frame.HeadLen
	return nil
}

// initialWindowLocked moves the window of every stream by the difference
// (RFC 9113, section 6.9.2). A stream keeps its window as what it differs from
// the initial one, so that this costs the same whatever is open.
func (c *Conn) initialWindowLocked(window int64) error {
	if window > c.peer.window {
		c.moved, c.raised = true, true
	}
	c.peer.window = window
	if window+c.peer.largest <= maxWindow {
		return nil
	}
	c.peer.largest = 0
	for _, s := range c.streams {
		c.peer.largest = max(c.peer.largest, s.windowMoved)
	}
	if window+c.peer.largest > maxWindow {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	return nil
}

func (c *Conn) pingLocked(f *http2.PingFrame) {
	if f.IsAck() {
		return
	}
	c.out = h2frame.AppendPing(c.out, f.Data, true)
	c.control += h2frame.HeadLen + len(f.Data)
	c.flushElsewhereLocked()
}

func (c *Conn) windowLocked(f *http2.WindowUpdateFrame) error {
	n := int64(f.Increment)
	if f.StreamID == 0 {
		if c.sendWindow+n > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.regainLocked(n)
		c.moved = true
		return nil
	}
	s, err := c.streamLocked(f.StreamID)
	if s == nil {
		return err
	}
	if s.windowMoved += n; s.windowLocked() > maxWindow {
		c.resetLocked(s, errWindow, http2.ErrCodeFlowControl)
		return nil
	}
	c.peer.largest = max(c.peer.largest, s.windowMoved)
	c.moved = true
	s.sendWake.Broadcast()
	return nil
}

// leaveLocked takes in that the server is going away. What that means for the
// streams is looked at once for all that came in one read.
func (c *Conn) leaveLocked(f *http2.GoAwayFrame) {
	c.draining = true
	c.usable.Store(false)
	if c.goAway == nil || c.goAway.Code == http2.ErrCodeNo && f.ErrCode != http2.ErrCodeNo {
		text := f.DebugData()
		c.goAway = &GoAwayError{Code: f.ErrCode, Text: string(text[:min(len(text), maxGoAwayText)])}
		if f.ErrCode != http2.ErrCodeNo {
			// It has to close the connection, and answers nothing more on it (RFC 9113, section 5.4.1). Node does not close it, and has
			// whoever called wait.
			_ = c.nc.SetReadDeadline(time.Now().Add(closeGrace))
		}
	}
	if f.LastStreamID < c.lastStream {
		c.lastStream, c.lowered = f.LastStreamID, true
	}
}

// dropUnprocessedLocked ends the streams that the server says it will not process;
// the others may end.
func (c *Conn) dropUnprocessedLocked() {
	if !c.lowered {
		return
	}
	c.lowered = false
	for id, s := range c.streams {
		if id > c.lastStream {
			c.failStreamLocked(s, fmt.Errorf("%w: %w", ErrUnprocessed, c.goAway))
		}
	}
}
