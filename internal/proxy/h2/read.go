package h2

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	pseudoStatus = ":status"
	fieldLength  = "content-length"
	maxWindow    = 1<<31 - 1

	statusFirstFinal = 200
	statusLast       = 999
	statusFirst      = 100
	statusSwitching  = 101
)

// read handles frames until the connection ends.
func (c *Conn) read() {
	defer c.stopped.Done()
	for {
		frame, err := c.framer.ReadFrame()
		c.frames.Add(1)
		c.mu.Lock()
		if err == nil {
			err = c.handleLocked(frame)
		}
		if streamErr, ok := errors.AsType[http2.StreamError](err); ok {
			err = c.streamErrorLocked(streamErr)
		}
		if err == nil && c.control > floodLimit {
			err = errFlood
		}
		if err != nil {
			c.goAwayLocked(err)
			c.mu.Unlock()
			c.fail(fmt.Errorf("read frames: %w", err))
			return
		}
		if !c.nextBuffered() {
			c.wakeReadyLocked()
		}
		last := c.draining && len(c.streams) == 0
		c.mu.Unlock()
		if last {
			c.fail(ErrClosed)
			return
		}
	}
}

// nextBuffered reports whether the next frame can be read without waiting for
// the server.
func (c *Conn) nextBuffered() bool {
	if c.reader.Buffered() < frameHead {
		return false
	}
	head, err := c.reader.Peek(frameHead)
	if err != nil {
		return false
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	switch kind, flags := http2.FrameType(head[3]), http2.Flags(head[4]); {
	case kind == http2.FrameHeaders && !flags.Has(http2.FlagHeadersEndHeaders):
		return false
	default:
		return c.reader.Buffered() >= frameHead+length
	}
}

// wakeReadyLocked wakes the streams that have something to read.
func (c *Conn) wakeReadyLocked() {
	for i, s := range c.woken {
		c.woken[i] = nil
		s.dirty = false
		if s.readyLocked() {
			notify(s.wake)
		}
	}
	c.woken = c.woken[:0]
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
	c.out = appendGoAway(c.out, code)
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
	case *http2.MetaHeadersFrame:
		return c.headersLocked(f)
	case *http2.RSTStreamFrame:
		s, err := c.streamLocked(f.StreamID)
		if s != nil {
			c.failStreamLocked(s, &ResetError{Code: f.ErrCode})
		}
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

func (c *Conn) dataLocked(f *http2.DataFrame) error {
	length := int64(f.Length)
	if c.received += length; c.received > connWindow {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if c.received >= connWindow/2 {
		c.out = appendWindowUpdate(c.out, 0, uint32(c.received))
		c.received = 0
		c.flushElsewhereLocked()
	}
	s, err := c.streamLocked(f.StreamID)
	if s == nil {
		return err
	}
	data := f.Data()
	switch {
	case s.status == 0:
		c.resetLocked(s, errNoHeaders, http2.ErrCodeProtocol)
	case s.eof:
		c.resetLocked(s, ErrMalformed, http2.ErrCodeStreamClosed)
	case length > s.recvWindow:
		c.resetLocked(s, errStreamWindow, http2.ErrCodeFlowControl)
	case s.stated >= 0 && int64(len(data)) > s.stated:
		c.resetLocked(s, errLength, http2.ErrCodeProtocol)
	default:
		c.receiveLocked(s, data, length)
		if f.StreamEnded() {
			c.endLocked(s)
		}
	}
	return nil
}

// receiveLocked takes in data of a frame of the given length, which counts its
// padding.
func (c *Conn) receiveLocked(s *Stream, data []byte, length int64) {
	s.recvWindow -= length
	s.credit += length - int64(len(data))
	if s.stated >= 0 {
		s.stated -= int64(len(data))
	}
	if len(data) > 0 {
		if s.body == nil && s.gather && s.stated > 0 {
			s.body = GetBuffer(int(min(s.stated+int64(len(data)), gatherBody)))
		}
		s.body = appendBuffer(s.body, data)
	}
	c.markLocked(s)
}

// endLocked notes that the response is complete.
func (c *Conn) endLocked(s *Stream) {
	if s.stated > 0 {
		c.resetLocked(s, errLength, http2.ErrCodeProtocol)
		return
	}
	s.eof = true
	notify(s.sendWake) // the rest of the request is not wanted
	c.markLocked(s)
	if s.sentEnd {
		c.removeLocked(s)
	}
}

func (c *Conn) headersLocked(f *http2.MetaHeadersFrame) error {
	s, err := c.streamLocked(f.StreamID)
	if s == nil {
		return err
	}
	switch {
	case f.Truncated, headerBytes(f.Fields) > c.maxHeaderBytes():
		c.resetLocked(s, errHeaderBytes, http2.ErrCodeProtocol)
	case s.eof:
		c.resetLocked(s, ErrMalformed, http2.ErrCodeStreamClosed)
	case s.status == 0:
		c.headLocked(s, f)
	case !f.StreamEnded() || len(f.PseudoFields()) > 0:
		c.resetLocked(s, errTrailer, http2.ErrCodeProtocol)
	default:
		s.trailer = f.RegularFields()
		c.endLocked(s)
	}
	return nil
}

// headLocked takes in the headers of a response.
func (c *Conn) headLocked(s *Stream, f *http2.MetaHeadersFrame) {
	status, err := parseStatus(f)
	if err == nil && status < statusFirstFinal {
		if s.interim++; s.interim > maxInterim || f.StreamEnded() {
			err = errInterim
		}
	}
	stated := int64(-1)
	if err == nil {
		stated, err = statedLength(f.RegularFields())
	}
	switch {
	case err != nil:
		c.resetLocked(s, err, http2.ErrCodeProtocol)
		return
	case status < statusFirstFinal:
		return
	}
	s.status, s.fields, s.stated = status, f.RegularFields(), stated
	c.markLocked(s)
	if f.StreamEnded() {
		c.endLocked(s)
	}
}

// headerBytes is the size of a header list (RFC 9113, section 6.5.2).
func headerBytes(fields []hpack.HeaderField) uint32 {
	var n uint32
	for _, f := range fields {
		n += f.Size()
	}
	return n
}

func parseStatus(f *http2.MetaHeadersFrame) (int, error) {
	pseudo := f.PseudoFields()
	if len(pseudo) != 1 || pseudo[0].Name != pseudoStatus || len(pseudo[0].Value) != len("200") {
		return 0, errStatus
	}
	status, err := strconv.Atoi(pseudo[0].Value)
	if err != nil || status < statusFirst || status > statusLast || status == statusSwitching {
		return 0, errStatus
	}
	return status, nil
}

// statedLength returns the content length that the fields state, -1 if none.
func statedLength(fields []hpack.HeaderField) (int64, error) {
	stated := int64(-1)
	for _, f := range fields {
		if f.Name != fieldLength {
			continue
		}
		n, err := strconv.ParseUint(f.Value, 10, 63)
		if err != nil || stated >= 0 && stated != int64(n) {
			return 0, errLength
		}
		stated = int64(n)
	}
	return stated, nil
}
