package h2serve

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

// read reads until there is a request whose handler is to be begun and nothing more to read
// without waiting, and returns it, nil at the end of the connection. Handlers of those that came
// with it are begun by others.
func (c *conn) read() *stream {
	for {
		if c.fresh != nil && !c.buffered() {
			st := c.fresh
			c.fresh = nil
			return st
		}
		frame, err := c.framer.ReadFrame()
		c.frames.Add(1)
		if head, ok := frame.(*http2.HeadersFrame); ok && err == nil {
			frame, err = c.head(head)
		}
		err = c.step(frame, err)
		c.blocks.release()
		if err != nil {
			c.fail(err)
			return nil
		}
	}
}

// head reads the rest of a header block. Whoever sends one without end is cut off, where somebody counts.
func (c *conn) head(f *http2.HeadersFrame) (http2.Frame, error) {
	head, err := c.blocks.read(f, c.continuation)
	if c.blocks.largest > longPiece {
		c.renewFramer()
	}
	switch {
	case !c.pays():
		return nil, errGone
	case err == nil:
		return head, nil
	case errors.Is(err, errTooLong) && (c.meter == nil || !c.meter.TooLong()):
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil, err
}

// continuation reads the next frame of a header block, where that is worth it.
func (c *conn) continuation() (http2.Frame, error) {
	if !c.pays() {
		return nil, errGone
	}
	return c.framer.ReadFrame() //nolint:wrapcheck // looked at by its type
}

// pays tells the meter what the fields were worth that came, waits as long as it says, and reports whether the
// peer may go on.
func (c *conn) pays() bool {
	beyond, many := c.blocks.worth()
	return beyond == 0 && many == 0 || c.meter == nil || c.meter.Decoded(beyond, many)
}

// buffered reports whether the next frame can be read without waiting for the peer.
func (c *conn) buffered() bool {
	if c.reader.Buffered() < h2frame.HeadLen {
		return false
	}
	head := c.reader.Peek(h2frame.HeadLen)
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	whole := http2.FrameType(head[3]) != http2.FrameHeaders || http2.Flags(head[4]).Has(http2.FlagHeadersEndHeaders)
	return whole && c.reader.Buffered() >= h2frame.HeadLen+length
}

// step handles one frame, or what came of reading it. An error is the end of the connection.
func (c *conn) step(frame http2.Frame, err error) error {
	if err == nil {
		err = c.take(frame)
	}
	if errors.Is(err, io.EOF) {
		return errGone // the usual end
	}
	if broken, ok := errors.AsType[http2.StreamError](err); ok {
		c.mu.Lock()
		c.lastID = max(c.lastID, broken.StreamID)
		c.resetLocked(broken.StreamID, broken.Code, broken)
		c.mu.Unlock()
		err = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && len(c.out) > floodLimit {
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errGone
	case errors.Is(err, http2.ErrFrameTooLarge):
		err = http2.ConnectionError(http2.ErrCodeFrameSize)
	}
	if code, ok := errors.AsType[http2.ConnectionError](err); ok {
		c.out = h2frame.AppendGoAway(c.out, c.lastID, http2.ErrCode(code))
		c.flushLocked()
		c.flushedLocked()
	}
	return err
}

// flushedLocked waits until what is pending has left, if another one is at writing it and the peer
// takes it.
func (c *conn) flushedLocked() {
	late, me := len(c.out) > floodLimit, &stream{}
	me.can.L = &c.mu
	t := time.AfterFunc(closeGrace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		late = true
		me.can.Broadcast()
	})
	defer t.Stop()
	for c.flushing && c.err == nil && !late {
		c.watching = append(c.watching, me)
		me.can.Wait()
	}
}

// take handles a frame. The first one has to be the peer's settings (RFC 9113, section 3.4).
func (c *conn) take(frame http2.Frame) error {
	_, settings := frame.(*http2.SettingsFrame)
	if c.met = c.met || settings; !c.met {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if head, ok := frame.(*http2.MetaHeadersFrame); ok {
		return c.headers(head)
	}
	err := c.other(frame)
	c.tellStray()
	return err
}

// other handles every frame but those of header blocks.
func (c *conn) other(frame http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.dataLocked(f)
	case *http2.RSTStreamFrame:
		if c.isIdleLocked(f.StreamID) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if st := c.streams[f.StreamID]; st != nil {
			st.recvWindow = 0 // nothing of it is under way
			st.breakLocked(resetError(f.ErrCode))
		}
		c.dropHalfLocked(f.StreamID)
	case *http2.SettingsFrame:
		return c.settingsLocked(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.out = h2frame.AppendPing(c.out, f.Data, true)
			c.flushElsewhereLocked()
		}
	case *http2.WindowUpdateFrame:
		return c.windowLocked(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case *http2.GoAwayFrame:
		c.awayLocked(f.ErrCode)
	default: // what the peer says of itself changes nothing here
	}
	return nil
}

// headers begins a stream, or takes in the trailer of a request.
func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	st := c.streams[f.StreamID]
	seen := f.StreamID <= c.lastID
	if f.StreamEnded() {
		c.completeLocked(f.StreamID)
	}
	c.mu.Unlock()
	switch {
	case st != nil:
		return c.trailer(st, f)
	case f.StreamID%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case seen:
		return nil // was under way when the stream ended
	}
	st, err := c.newStream(f)
	c.mu.Lock()
	defer c.mu.Unlock()
	body := c.bodyLocked(f)
	c.lastID = f.StreamID
	if f.Truncated && st == nil {
		c.tooLargeLocked(f)
		return nil
	}
	if err != nil {
		return err
	}
	if c.err != nil { // whoever ended the connection has not seen this stream
		st.ctx.End(nil)
		return c.err
	}
	if c.left { // the peer is told that nothing becomes of it
		st.ctx.End(nil)
		return nil
	}
	if limit := int(c.s.cfg.MaxStreams); len(c.streams) >= limit || c.running >= handlersFor*limit {
		st.ctx.End(nil)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeRefusedStream}
	}
	c.underway -= body
	c.beginLocked(st)
	return nil
}

// beginLocked has the handler of a stream be begun: when there is nothing more to read at once, or
// with the next one.
func (c *conn) beginLocked(st *stream) {
	c.headSeenLocked()
	st.window = c.peer.window
	c.streams[st.id] = st
	c.running++
	if c.fresh != nil {
		c.s.give(job{c: c, st: c.fresh})
	}
	c.fresh = st
}

// tooLargeLocked answers a request whose head is larger than is taken, where no handler does.
func (c *conn) tooLargeLocked(f *http2.MetaHeadersFrame) {
	c.block.Reset()
	c.fieldLocked(":status", strconv.Itoa(http.StatusRequestHeaderFieldsTooLarge))
	c.out = h2frame.AppendHeaders(c.out, f.StreamID, c.block.Bytes(), true, c.peer.maxFrame)
	if !f.StreamEnded() {
		c.halfCloseLocked(f.StreamID)
	}
	c.flushElsewhereLocked()
}

func (c *conn) trailer(st *stream, f *http2.MetaHeadersFrame) error {
	if f.Truncated { // of which the rest would be missing without a word
		c.s.cfg.Met(c.nc, ErrTrailer)
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeEnhanceYourCalm, Cause: ErrTrailer}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case st.remote:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case !f.StreamEnded(), len(f.PseudoFields()) > 0:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	for _, field := range f.RegularFields() {
		name := c.canonical(field.Name)
		if _, declared := st.trailer[name]; declared {
			if st.arrived == nil {
				st.arrived = http.Header{}
			}
			st.arrived[name] = append(st.arrived[name], field.Value)
		}
	}
	return st.uploadedLocked()
}

func (c *conn) dataLocked(f *http2.DataFrame) error {
	length := int64(f.Length)
	if c.recvWindow -= length; c.recvWindow < 0 {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if c.isIdleLocked(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.streams[f.StreamID]
	if st == nil {
		c.creditLocked(length)
		c.strayLocked(length)
		if f.StreamEnded() {
			c.completeLocked(f.StreamID)
		}
		return nil
	}
	data := f.Data()
	c.creditLocked(length - int64(len(data)))
	st.recvWindow -= length
	switch {
	case st.remote:
		c.creditLocked(int64(len(data)))
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	case st.recvWindow < 0:
		c.creditLocked(int64(len(data)))
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	case st.declared >= 0 && int64(len(data)) > st.declared:
		c.creditLocked(int64(len(data)))
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	st.takeLocked(data, length)
	if f.StreamEnded() {
		return st.uploadedLocked()
	}
	return nil
}

// isIdleLocked reports whether a stream has not been begun, and so cannot have frames.
func (c *conn) isIdleLocked(id uint32) bool { return id%2 == 0 || id > c.lastID }

// creditLocked gives n bytes back to the window of the connection, in large steps, and at once
// where uploads that nobody reads have most of it.
func (c *conn) creditLocked(n int64) {
	const half, quarter = 2, 4
	whole := int64(c.s.cfg.ConnWindow)
	if c.credit += n; c.credit == 0 || c.credit < whole/half && c.recvWindow >= whole/quarter {
		return
	}
	c.grantLocked()
}

// grantLocked gives back what was not yet.
func (c *conn) grantLocked() {
	c.out = h2frame.AppendWindowUpdate(c.out, 0, uint32(c.credit)) //nolint:gosec // at most the window
	c.recvWindow += c.credit
	c.credit = 0
	c.flushElsewhereLocked()
}

func (c *conn) settingsLocked(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	window := c.peer.window // the last one, however many the frame has
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err //nolint:wrapcheck // a connection error, looked at by its type
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			window = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.peer.maxFrame = min(int(s.Val), largestFrame)
		case http2.SettingHeaderTableSize:
			c.peer.table = min(s.Val, tableSize)
			c.encoder.SetMaxDynamicTableSize(c.peer.table)
		default:
		}
		return nil
	})
	if err == nil && window != c.peer.window {
		err = c.initialWindowLocked(window)
	}
	c.out = h2frame.AppendSettingsAck(c.out)
	c.flushElsewhereLocked()
	return err
}

// initialWindowLocked moves the window of every stream (RFC 9113, section 6.9.2).
func (c *conn) initialWindowLocked(window int64) error {
	by := window - c.peer.window
	c.peer.window = window
	for _, st := range c.streams {
		if st.window += by; st.window > largestWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		st.wakeLocked()
	}
	return nil
}

func (c *conn) windowLocked(f *http2.WindowUpdateFrame) error {
	n := int64(f.Increment)
	if f.StreamID == 0 {
		if c.window += n; c.window > largestWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wakeBlockedLocked()
		return nil
	}
	if c.isIdleLocked(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.streams[f.StreamID]
	if st == nil {
		return nil
	}
	if st.window += n; st.window > largestWindow {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	}
	st.wakeLocked()
	return nil
}
