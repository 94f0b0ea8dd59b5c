package h2

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// read handles frames until the connection ends.
func (c *Conn) read() {
	for {
		frame, err := c.readFrame()
		whole := true
		if err == nil {
			whole, err = c.in.take(frame)
		}
		if !whole && err == nil {
			continue // half a header block is no sign of life
		}
		c.frames.Add(1)
		if err == nil && blockOf(frame) {
			c.weigh()
		}
		event, err := c.step(frame, err)
		c.in.fields = nil // whoever wants them has them
		if event.goAway != nil && c.cfg.Away != nil {
			c.cfg.Away(event.goAway)
		}
		if err != nil {
			c.fail(c.cause(err))
			return
		}
		if event.room {
			c.tellRoom()
		}
		if event.freed && c.cfg.Freed != nil {
			c.cfg.Freed()
		}
	}
}

// cause is why the connection ends with an error of whoever reads: where nothing could be written any more, that. That a
// server that cannot go on was left is no deadline of a call, for which its caller would take it.
func (c *Conn) cause(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goAway != nil && c.goAway.Code != http2.ErrCodeNo && errors.Is(err, os.ErrDeadlineExceeded) {
		err = errLeft
	}
	return cmp.Or(c.deaf, err) //nolint:wrapcheck // stands for what it wraps
}

// readFrame reads a frame. One of a header block that cannot be read ends the
// connection: what it would have left in the compression state is missing.
func (c *Conn) readFrame() (http2.Frame, error) {
	head, err := c.framer.ReadFrameHeader()
	if err != nil {
		return nil, err //nolint:wrapcheck // looked at by its type
	}
	if c.reader.records != nil {
		c.reader.records.Frame()
	}
	frame, err := c.framer.ReadFrameForHeader(head)
	if _, ok := errors.AsType[http2.StreamError](err); ok && head.Type == http2.FrameHeaders {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return frame, err //nolint:wrapcheck // looked at by its type
}

// event is what a frame says that others are told.
type event struct {
	goAway *GoAwayError
	room   bool
	freed  bool
}

// step handles one frame, or what came of reading it. An error is the end of the
// connection.
func (c *Conn) step(frame http2.Frame, err error) (event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil { // it has ended, and that is all that the error says
		return event{}, c.err
	}
	limit, said, full := c.limit.Load(), c.goAway, c.Full()
	if err == nil {
		c.worth.got(frame)
		err = c.handleLocked(frame)
	}
	if streamErr, ok := errors.AsType[http2.StreamError](err); ok {
		err = c.streamErrorLocked(streamErr)
	}
	if err == nil && (c.control > floodLimit || c.worth.spent(time.Now)) {
		err = errFlood
	}
	if err != nil {
		c.goAwayLocked(err)
		return event{}, fmt.Errorf("read frames: %w", err)
	}
	if !c.nextBuffered() {
		c.settleLocked()
	}
	if c.draining && len(c.streams) == 0 {
		err = ErrClosed
	}
	var e event
	if c.goAway != said {
		e.goAway, e.room = c.newsLocked(), true
	}
	e.room = e.room || c.limit.Load() > limit
	e.freed = full && !c.Full()
	return e, err
}

// newsLocked returns what the server said when it went, unless that answers a farewell.
func (c *Conn) newsLocked() *GoAwayError {
	if c.parting && c.goAway.Code == http2.ErrCodeNo {
		return nil
	}
	return c.goAway
}

// settleLocked tells everybody what the frames say that were read.
func (c *Conn) settleLocked() {
	c.wakeReadyLocked()
	c.dropUnprocessedLocked()
	c.wakeMovedLocked()
}

// blockOf reports whether a frame is of a header block.
func blockOf(f http2.Frame) bool {
	switch f.(type) {
	case *http2.HeadersFrame, *http2.ContinuationFrame:
		return true
	default:
		return false
	}
}

// nextBuffered reports whether the next frame can be read without waiting for
// the server.
func (c *Conn) nextBuffered() bool {
	if c.reader.Buffered() < h2frame.HeadLen {
		return false
	}
	head := c.reader.Peek(h2frame.HeadLen)
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	switch kind, flags := http2.FrameType(head[3]), http2.Flags(head[4]); {
	case kind == http2.FrameHeaders && !flags.Has(http2.FlagHeadersEndHeaders):
		return false
	default:
		return c.reader.Buffered() >= h2frame.HeadLen+length
	}
}

// wakeReadyLocked wakes the streams that have something to read.
func (c *Conn) wakeReadyLocked() {
	for i, s := range c.woken {
		c.woken[i] = nil
		s.dirty = false
		if s.readyLocked() {
			s.wake.Broadcast()
		} else {
			c.gatherLocked(s)
		}
	}
	c.woken = c.woken[:0]
}

// gatherLocked has the gathering of s end soon, unless it is to be whole.
func (c *Conn) gatherLocked(s *Stream) {
	if s.holding || s.whole {
		return
	}
	s.holding = true
	c.held = append(c.held, s)
	c.holdLocked()
}

// releaseHeld ends the gathering of responses that are still growing.
func (c *Conn) releaseHeld() {
	defer c.stopped.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, s := range c.held {
		c.held[i] = nil
		if s.readyLocked() {
			s.holding = false // what comes after what is there has a time of its own
			continue
		}
		s.gather, s.lifted = false, true
		s.wake.Broadcast()
	}
	c.held, c.holdArmed = c.held[:0], false
}

func (c *Conn) markLocked(s *Stream) {
	if !s.dirty {
		s.dirty = true
		c.woken = append(c.woken, s)
	}
}

// goAwayLocked tells the server what it did wrong.
func (c *Conn) goAwayLocked(err error) {
	code := http2.ErrCodeEnhanceYourCalm
	if connErr, ok := errors.AsType[http2.ConnectionError](err); ok {
		code = http2.ErrCode(connErr)
	} else if !errors.Is(err, errFlood) {
		return
	}
	c.out = h2frame.AppendGoAway(c.out, 0, code)
	c.flushElsewhereLocked()
}

func (c *Conn) streamErrorLocked(e http2.StreamError) error {
	s, err := c.streamLocked(e.StreamID)
	if s != nil {
		c.resetLocked(s, fmt.Errorf("%w: %w", ErrMalformed, e), e.Code)
	}
	return err
}

// streamLocked returns the stream of a frame, nil if it has ended already. An id
// that was never used ends the connection.
func (c *Conn) streamLocked(id uint32) (*Stream, error) {
	if id > c.lastStream {
		c.dropUnprocessedLocked() // before it says more about them
	}
	if s, ok := c.streams[id]; ok {
		return s, nil
	}
	if id%2 == 0 || id >= c.nextID {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil, nil //nolint:nilnil // a frame that was under way when the stream ended
}

func (c *Conn) handleLocked(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.dataLocked(f)
	case *http2.HeadersFrame, *http2.ContinuationFrame:
		return c.headersLocked(&c.in)
	case *http2.RSTStreamFrame:
		s, err := c.streamLocked(f.StreamID)
		if s != nil {
			c.worth.earn()
			c.failStreamLocked(s, &ResetError{Code: f.ErrCode})
		}
		c.settledLocked(f.StreamID)
		return err
	case *http2.SettingsFrame:
		return c.settingsLocked(f)
	case *http2.PingFrame:
		c.pingLocked(f)
		return nil
	case *http2.WindowUpdateFrame:
		return c.windowLocked(f)
	case *http2.GoAwayFrame:
		c.leaveLocked(f)
		return nil
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	default:
		return nil
	}
}
